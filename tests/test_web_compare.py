"""Two models on one song: which is which stays hidden, references are found and scored."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import make_signal

from separator.errors import AudioError, ConfigError
from separator.evaluation.ratios import usdr
from separator.web import compare
from separator.web.jobs import Job
from separator.web.service import Request, Service
from separator.web.settings import AppSettings
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
    service = Service(AppSettings(device="cpu"))
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


@pytest.mark.parametrize("gain", [0.0, 0.9, 1.0])
def test_scores_are_those_of_the_evaluation_down_to_soft_songs(scores, gain):
    truth = 1e-5 * make_signal(RATE, RATE)
    guess = np.float32(gain) * truth
    want = usdr(torch.from_numpy(truth)[None], torch.from_numpy(guess)[None]).item()
    assert scores(truth, guess)["a"]["X"] == pytest.approx(want, abs=1e-3)


def test_silent_references_are_not_scored(scores):
    silence = np.zeros((2, RATE), np.float32)
    assert scores(silence, make_signal(RATE, RATE), silence) == {}


STEMS = ("drums", "bass", "other", "vocals", "lead vocals")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("vocals", "vocals"),
        ("My_Vocals (2)", "vocals"),
        ("All About That Bass - vocals", "vocals"),
        ("My Brother - DRUMS", "drums"),
        ("vocals - the bass", "bass"),
        ("song_lead-vocals", "lead vocals"),
        ("No Drums - other", "other"),
    ],
)
def test_references_are_known_by_the_last_stem_in_their_names(name, stem):
    path = Path(f"{name}.wav")
    assert compare.match_references([path], STEMS) == {stem: path}
    assert compare.match_references([path], STEMS[::-1]) == {stem: path}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["kazoo.wav"], "'kazoo.wav' is no known stem; .* one of: drums"),
        (["My Brother.wav"], "no known stem"),
        (["song - no_vocals.wav"], "'song - no_vocals.wav' seems to be a song without one"),
        (["no drums.wav"], "choose the file of a stem alone, .* one of: drums"),
        (["a/vocals.wav", "b/Vocals 2.wav"], "'vocals.wav' and 'Vocals 2.wav' are both of vocals"),
    ],
)
def test_references_that_could_be_wrong_are_refused(names, message):
    with pytest.raises(ConfigError, match=message):
        compare.match_references([Path(name) for name in names], STEMS)


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


def test_uploads_that_are_deleted_while_their_job_waits_are_compared(service, song):
    gate = threading.Event()
    service.queue.submit(Job("before", "somebody/", lambda job: gate.wait(300)))
    files = [song("a.wav"), song("vocals.wav")]
    job = compare.submit(service, Request(files[0], "tiny"), ("tiny", "twin"), files[1:], "me/")
    for file in files:
        file.unlink()  # as Gradio does after a time
    gate.set()
    assert job.ended.wait(300) and job.state == "done", job.error
    assert [track.name for track in job.result.tracks][::9] == ["original", "vocals"]
    assert job.result.title == "a"
