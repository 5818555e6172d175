"""Scores as files: they come back as they were, and museval reads them."""

import json
import math

import numpy as np
import pytest

from separator.errors import ConfigError
from separator.evaluation.results import (
    FRAME_METRICS,
    Run,
    Target,
    TrackResult,
    find_results,
    read_result,
    result_path,
)
from separator.evaluation.summary import summarize

try:
    import museval
except Exception:  # its import looks for ffmpeg, and complains in several ways
    museval = None


def make_result(track="song", method="model", seed=0, frames=5) -> TrackResult:
    generator = np.random.default_rng(seed)
    targets = []
    for stem in ("drums", "vocals"):
        values = {name: generator.normal(5, 3, frames).tolist() for name in FRAME_METRICS}
        for name in FRAME_METRICS:
            values[name][1] = math.nan
        scores = {"csdr": float(np.nanmedian(values["SDR"])), "usdr": float(generator.normal())}
        targets.append(Target(stem, values, scores))
    run = Run(method, "model", "a-b", "torch", "musdb18hq", 44100, frames, seconds=2.5)
    return TrackResult(track, "test", run, tuple(targets))


def test_results_come_back(tmp_path):
    result = make_result()
    again = read_result(result.write(tmp_path))
    assert again.run == result.run
    for old, new in zip(result.targets, again.targets, strict=True):
        assert new.scores == pytest.approx(old.scores, abs=1e-5)
        for name in FRAME_METRICS:
            np.testing.assert_allclose(new.frames[name], old.frames[name], atol=1e-5)


def test_infinite_ratios_are_written_as_museval_does(tmp_path):
    target = Target("drums", {name: [math.inf] for name in FRAME_METRICS}, {"csdr": math.inf}, {})
    result = TrackResult("song", "test", make_result().run, (target,))
    again = read_result(result.write(tmp_path)).targets[0]
    assert math.isnan(again.frames["SDR"][0])
    assert math.isnan(again.scores["csdr"])


def test_names_of_tracks_stay_in_their_folder(tmp_path):
    path = make_result(track="../AC/DC: live?").write(tmp_path)
    assert path.parent == tmp_path / "model" / "test"
    assert read_result(path).track == "../AC/DC: live?"


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(ConfigError, match="No space left"):
        make_result().write(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("text", ["", "{}", '{"targets": [], "separator": {"track": "a"}}'])
def test_foreign_files_are_refused(tmp_path, text):
    path = result_path(tmp_path, "model", "test", "song")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError, match="holds no scores"):
        list(find_results(tmp_path))


@pytest.mark.skipif(museval is None, reason="museval can't be imported")
def test_museval_reads_them_and_averages_alike(tmp_path):
    for seed in range(4):
        make_result(track=f"song {seed}", seed=seed).write(tmp_path)
    store = museval.EvalStore()
    store.add_eval_dir(tmp_path / "model")
    theirs = store.agg_frames_tracks_scores()
    ours = summarize(tmp_path, "test")
    for stem in ours.stems:
        assert ours.value("model", stem, "csdr") == pytest.approx(theirs[stem]["SDR"], abs=1e-5)


@pytest.mark.skipif(museval is None, reason="museval can't be imported")
def test_files_follow_musevals_schema(tmp_path):
    path = make_result().write(tmp_path)
    store = museval.TrackStore("song")
    store.scores = json.loads(path.read_text())
    store.validate()
    assert set(store.df["metric"]) == set(FRAME_METRICS)
    assert len(store.df) == 2 * 5 * 4
