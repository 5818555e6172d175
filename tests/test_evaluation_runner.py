"""The loop over tracks and methods, and the folders of estimates that it finds."""

import json
import os
import shutil
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_runs import STEMS, write

from separator.datasets import scan_dataset
from separator.errors import AudioError, Cancelled
from separator.evaluation import measure
from separator.evaluation.measure import Evaluation, evaluate, load_song
from separator.evaluation.methods import Estimates, FolderMethod, choose_oracles, open_folder

pytest_plugins = ["evaluation_runs"]


@pytest.fixture
def dataset(data, tmp_path):
    return scan_dataset(data, "musdb18hq", index=tmp_path / "index.json")


def test_a_process_ends_with_its_parent(monkeypatch):
    reading, writing = os.pipe()
    parent = SimpleNamespace(sentinel=reading)
    ended = []
    monkeypatch.setattr(measure.multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(measure.os, "kill", lambda *call: ended.append(call))
    watch = threading.Thread(target=measure._end_with_parent)
    watch.start()
    assert not ended
    os.close(writing)  # as the system does when a process is killed
    watch.join()
    os.close(reading)
    assert ended == [(os.getpid(), signal.SIGTERM)]


@pytest.mark.slow
def test_processes_give_the_same_scores(dataset, tmp_path):
    methods = tuple(choose_oracles(["mixture", "icm"]))
    found = []
    for jobs in (1, 2):
        output = tmp_path / f"{jobs}"
        outcomes = evaluate(dataset.tracks, Evaluation(methods, ("usdr",), output), jobs=jobs)
        assert {outcome.status for outcome in outcomes} == {"done"}
        found.append(
            {
                path.relative_to(output): json.loads(path.read_text())["targets"]
                for path in output.glob("*/test/*.json")
            }
        )
    assert len(found[0]) == 6
    assert found[0] == found[1]


class Faulty:
    """A method that fails on one track, in one of several ways."""

    name, kind = "faulty", "estimates"

    def __init__(self, error):
        self.error = error

    def identity(self, track, split):
        return self.name

    def estimate(self, song, cancel=None):
        if song.name == "second":
            raise self.error
        return Estimates(dict.fromkeys(song.stems, song.mixture))


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (AudioError("no\ngood"), "failed", "no good"),
        (ValueError("defect"), "failed", "unexpected error: ValueError: defect"),
        (OSError(28, "No space left"), "failed", "[Errno 28] No space left"),
        (Cancelled("Cancelled."), "cancelled", None),
    ],
)
def test_a_failure_does_not_stop_the_others(dataset, tmp_path, error, status, text):
    methods = (Faulty(error), *choose_oracles(["mixture"]))
    outcomes = evaluate(dataset.tracks, Evaluation(methods, ("usdr",), tmp_path / "out"))
    failed = [outcome for outcome in outcomes if outcome.status != "done"]
    assert [(o.track, o.method, o.status, o.error) for o in failed] == [
        ("second", "faulty", status, text)
    ]
    assert len(outcomes) == 6
    assert bool(failed[0].details) == isinstance(error, ValueError)


def test_a_track_is_read_once_for_all_methods_and_not_if_all_is_there(
    dataset, tmp_path, monkeypatch
):
    read = []
    monkeypatch.setattr(
        "separator.evaluation.measure.load_song",
        lambda track, split: read.append(track.name) or load_song(track, split),
    )
    evaluation = Evaluation(choose_oracles(["mixture", "irm1"]), ("usdr",), tmp_path / "out")
    for _ in range(2):
        evaluate(dataset.tracks, evaluation)
        assert read == ["first", "second", "third"]


def test_stale_scores_do_not_outlive_a_failure(dataset, tmp_path):
    evaluation = Evaluation((Faulty(AudioError("x")),), ("usdr",), tmp_path / "out")
    Faulty.name = "mixture"
    try:
        whole = Evaluation(choose_oracles(["mixture"]), ("usdr",), tmp_path / "out")
        evaluate(dataset.tracks, whole)
        evaluate(dataset.tracks, evaluation)
    finally:
        Faulty.name = "faulty"
    names = sorted(path.stem for path in tmp_path.glob("out/mixture/test/*.json"))
    assert names == ["first", "third"]


@pytest.mark.parametrize("where", ["{track}/{stem}", "test/{track}/{stem}", "{track}_{stem}"])
def test_estimates_are_found_in_the_usual_places(data, dataset, tmp_path, where):
    folder = tmp_path / "estimates"
    for path in data.glob("test/*/vocals.wav"):
        target = folder / (where.format(track=path.parent.name, stem="vocals") + ".wav")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    found = open_folder(folder, "mine", [track.name for track in dataset.tracks], "test")
    assert found.stems == ("vocals",)
    song = load_song(dataset.tracks[0], "test")
    assert np.array_equal(found.estimate(song).stems["vocals"], song.references[3])


def test_tracks_may_begin_with_the_name_of_another(tmp_path):
    for name in ("song", "song_2"):
        write(tmp_path / f"{name}_vocals.wav", np.zeros((10, 2)))
        write(tmp_path / f"{name}_bass.wav", np.zeros((10, 2)))
    write(tmp_path / "third_vocals.wav", np.zeros((10, 2)))
    write(tmp_path / "third_bass.wav", np.zeros((10, 2)))
    assert open_folder(tmp_path, "x", ["song", "song_2", "third"], "test").stems == (
        "bass",
        "vocals",
    )


def test_a_folder_knows_its_identity(estimates):
    folder = FolderMethod(estimates, "half", STEMS)
    assert folder.identity("first", "test") == folder.identity("first", "test")
    assert folder.identity("first", "test") != folder.identity("second", "test")
