"""Two models on one song: which is which stays hidden, references are found and scored."""

import numpy as np
import pytest
import yaml
from conftest import make_signal

from separator.errors import AudioError, ConfigError
from separator.web import compare
from separator.web.jobs import Job
from separator.web.service import Request, Service
from separator.web.settings import Settings
from separator.web.songs import Song, Track

RATE = 44100


@pytest.fixture
def service(tiny_models, tmp_path, monkeypatch):
    """A service with the models `tiny` and `twin`, on the CPU."""
    card = yaml.safe_load((tiny_models / "tiny.yaml").read_text())
    card["weights"]["file"] = str(tiny_models / card["weights"]["file"])
    (tmp_path / "models").mkdir()
    for name in ("tiny", "twin"):
        (tmp_path / "models" / f"{name}.yaml").write_text(yaml.safe_dump(card | {"name": name}))
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path / "cache"))
    service = Service(Settings(device="cpu"))
    yield service
    service.close()


@pytest.fixture
def scores(song):
    """Return a function that scores estimates, one for each letter, of a stem called `a`."""

    def score(truth: np.ndarray, *estimates: np.ndarray) -> dict[str, dict[str, float]]:
        groups = (compare.REFERENCE, *compare.LETTERS)
        tracks = tuple(
            Track("a", song(f"{group}.wav", signal, bit_depth=32), group=group)
            for group, signal in zip(groups, (truth, *estimates), strict=False)
        )
        folder = tracks[0].path.parent
        return compare.scores(Song("token", folder, "a", RATE, 2, truth.shape[1], tracks))

    return score


def test_scores_are_the_closed_form(scores):
    signal = make_signal(RATE, RATE)
    found = scores(signal, 0.9 * signal)
    assert found["a"]["X"] == pytest.approx(20.0, abs=1e-3)  # 10 % of the level


def test_references_are_known_by_their_names(tmp_path):
    files = [tmp_path / "My Vocals.wav", tmp_path / "drums.wav"]
    found = compare.match_references(files, ["drums", "vocals"])
    assert found == {"vocals": files[0], "drums": files[1]}
    with pytest.raises(ConfigError, match="kazoo"):
        compare.match_references([tmp_path / "kazoo.wav"], ["drums"])


@pytest.mark.parametrize("samples, rate", [(RATE // 2, RATE), (RATE // 2, RATE // 2)])
def test_a_reference_unlike_its_song_is_refused(service, song, samples, rate):
    reference = song("vocals.wav", make_signal(samples, rate), rate)
    request = Request(song("a.wav"), "tiny")  # of a second
    with pytest.raises(AudioError, match="must be alike"):
        compare.submit(service, request, ("tiny", "twin"), [reference], "me/")


def test_the_same_model_twice_is_no_comparison(service, song):
    request = Request(song("a.wav"), "tiny")
    with pytest.raises(ConfigError, match="different"):
        compare.submit(service, request, ("tiny", "tiny"), [], "me/")


@pytest.mark.parametrize("letters", [["X", "Y"], ["Y", "X"]])
def test_the_order_of_loading_does_not_tell_which_is_which(service, song, monkeypatch, letters):
    steps = []
    begin = Job.begin

    def note(job: Job, step: str) -> None:
        steps.append(step)
        begin(job, step)

    monkeypatch.setattr(Job, "begin", note)
    monkeypatch.setattr("random.sample", lambda *_: letters)
    request = Request(song("a.wav"), "twin")
    job = compare.submit(service, request, ("twin", "tiny"), [], "me/")
    assert job.ended.wait(300) and job.state == "done", job.error
    loading = [step for step in steps if step.startswith("Loading")]
    assert loading == ["Loading twin", "Loading tiny"], "in the order of the choice"
    assert job.result.truth["names"] == dict(zip(letters, ("twin", "tiny"), strict=True))
    groups = [track.group for track in job.result.tracks]
    assert groups == ["", *4 * ["X"], *4 * ["Y"]]
