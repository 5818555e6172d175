"""`separator evaluate`: a whole run on small data, going on with it, and all that can be wrong."""

import csv
import json
import math
import os
import shutil
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from separator.datasets import scan_dataset
from separator.errors import AudioError, Cancelled, ConfigError
from separator.evaluation import runner
from separator.evaluation.methods import (
    Estimates,
    Folder,
    Oracle,
    choose_oracles,
    open_folder,
)
from separator.evaluation.results import read_result
from separator.evaluation.runner import Evaluation, evaluate, load_song

STEMS = ("drums", "bass", "other", "vocals")
RATE = 4000


def write(path: Path, audio: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, "PCM_16")


def write_song(folder: Path, seed: int, seconds: float = 2.5) -> None:
    generator = np.random.default_rng(seed)
    stems = np.round(generator.normal(0, 2000, (4, round(seconds * RATE), 2))) / 32768
    for stem, audio in zip(STEMS, stems, strict=True):
        write(folder / f"{stem}.wav", audio)
    write(folder / "mixture.wav", stems.sum(0))


@pytest.fixture
def data(tmp_path):
    """Three songs laid out as in MUSDB18-HQ."""
    for seed, name in enumerate(("first", "second", "third")):
        write_song(tmp_path / "data" / "test" / name, seed)
    return tmp_path / "data"


@pytest.fixture
def estimates(tmp_path, data):
    """A folder of estimates: the true stems at half their level."""
    folder = tmp_path / "half"
    for path in data.glob("test/*/*.wav"):
        if path.stem != "mixture":
            audio, rate = soundfile.read(path)
            write(folder / path.parent.name / path.name, audio / 2, rate)
    return folder


@pytest.fixture
def run(cli, data, tmp_path):
    """A function that evaluates on the data: one metric, no oracle, no report, unless told."""

    def evaluate(*words, code=0, oracle="none", metric="usdr"):
        common = ("--data", data, "-o", tmp_path / "results")
        usual = ("--no-report", "--oracle", oracle, "--metric", metric)
        return cli("evaluate", *common, *usual, *words, code=code)

    return evaluate


@pytest.fixture
def dataset(data, tmp_path):
    return scan_dataset(data, "musdb18hq", index=tmp_path / "index.json")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_models_estimates_and_oracles_in_one_pass(run, estimates, tmp_path):
    words = ("--model", "tiny", "--estimates", estimates, "--metric", "csdr", "--report")
    done = run(*words, oracle="irm1")
    results = tmp_path / "results"
    assert str(results / "report.html") in done.stdout
    assert "[3/3] third: 4 done" in done.stderr
    for method in ("tiny", "half", "mixture", "oracle-irm1"):
        tracks = [path.stem for path in sorted(results.glob(f"{method}/test/*.json"))]
        assert tracks == ["first", "second", "third"]
    tiny = read_result(results / "tiny" / "test" / "first.json").run
    assert (tiny.kind, tiny.data, tiny.sample_rate, tiny.duration) == (
        "model",
        "musdb18hq",
        RATE,
        2.5,
    )
    assert tiny.seconds > 0
    assert [target.name for target in read_result(results / "half/test/first.json").targets] == [
        *STEMS
    ]
    report = (results / "report.html").read_text()
    assert report.count("data:image/png;base64,") == len(list((results / "plots").glob("*.png")))
    assert len(table(results / "frames.csv")) == 4 * 3 * 4 * 2  # methods, tracks, stems, frames


def test_scores_are_those_of_their_definition(run, estimates, tmp_path):
    """Half the level is 20 log10 2 dB of SDR, and no distortion that a filter couldn't make."""
    run("--estimates", estimates, "--metric", "csdr", "--metric", "csir", "--report")
    rows = {
        (row["stem"], row["metric"]): float(row["score"])
        for row in table(tmp_path / "results" / "summary.csv")
        if row["method"] == "half"
    }
    for stem in STEMS:
        assert rows[stem, "usdr"] == pytest.approx(6.02, abs=0.01)  # 16-bit rounding
        assert rows[stem, "csdr"] == pytest.approx(6.02, abs=0.01)
        assert rows[stem, "csir"] > 50


def test_a_second_run_measures_nothing_anew(run, estimates, tmp_path):
    run("--estimates", estimates)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("results/*/test/*.json")}
    again = run("--estimates", estimates)
    assert "[3/3] third: 2 kept" in again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_run_goes_on_where_it_ended(run, estimates):
    run("--limit", "2", "--estimates", estimates)
    again = run("--estimates", estimates)
    assert "[2/3] second: 2 kept" in again.stderr
    assert "[3/3] third: 2 done" in again.stderr


def test_what_changed_is_measured_anew(run, estimates):
    run("--estimates", estimates)
    assert "first: 2 done" in run("--estimates", estimates, metric="si_sdr").stderr
    write(estimates / "second" / "bass.wav", np.full((10000, 2), 0.1))
    again = run("--estimates", estimates, metric="si_sdr").stderr
    assert "first: 2 kept" in again
    assert "second: 1 done, 1 kept" in again


def test_changed_references_are_compared_anew(run, data):
    run()
    path = data / "test" / "second" / "bass.wav"
    audio, _ = soundfile.read(path)
    write(path, audio[::-1])  # of the same length
    os.utime(path, ns=(0, 0))
    again = run().stderr
    assert "first: 1 kept" in again
    assert "second: 1 done" in again


def test_scores_that_were_cut_off_are_measured_anew(run, tmp_path):
    run()
    path = tmp_path / "results" / "mixture" / "test" / "second.json"
    path.write_text(path.read_text()[:100])
    again = run().stderr
    assert "first: 1 kept" in again
    assert "second: 1 done" in again
    assert read_result(path).track == "second"


def test_nobody_looks_at_tracks_beyond_the_limit(run, data):
    (data / "test" / "third" / "bass.wav").unlink()
    assert "2 tracks of musdb18hq, test, with the stems drums" in run("--limit", "2").stderr
    run(code=1)


def test_a_process_ends_with_its_parent(monkeypatch):
    reading, writing = os.pipe()
    parent = SimpleNamespace(sentinel=reading)
    ended = []
    monkeypatch.setattr(runner.multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(runner.os, "kill", lambda *call: ended.append(call))
    watch = threading.Thread(target=runner._end_with_parent)
    watch.start()
    assert not ended
    os.close(writing)  # as the system does when a process is killed
    watch.join()
    os.close(reading)
    assert ended == [(os.getpid(), signal.SIGTERM)]


def test_an_interrupted_run_keeps_what_is_finished(run, monkeypatch):
    estimate = Oracle.estimate

    def interrupted(oracle, song, cancel=None):
        if song.name == "second":
            raise KeyboardInterrupt
        return estimate(oracle, song, cancel)

    with monkeypatch.context() as patch:
        patch.setattr(Oracle, "estimate", interrupted)
        assert "Interrupted." in run(code=130).stderr
    assert "first: 1 kept" in run().stderr


def test_settings_of_a_model_make_its_results_stale(run):
    run("--model", "tiny")
    assert "first: 2 kept" in run("--model", "tiny").stderr
    assert "first: 1 done, 1 kept" in run("--model", "tiny", "--overlap", "0.5").stderr


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
        "separator.evaluation.runner.load_song",
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


@pytest.mark.parametrize(
    ("audio", "rate", "text"),
    [
        (np.zeros((9999, 2)), RATE, "4000 Hz, 2 channels, 9999 samples; the track has"),
        (np.zeros((10001, 2)), RATE, "10001 samples; the track has"),
        (np.zeros((10000, 2)), 8000, "8000 Hz, 2 channels, 10000 samples; the track has 4000 Hz"),
        (np.zeros((10000, 1)), RATE, "1 channels"),
    ],
)
def test_estimates_of_another_form_are_an_error(run, estimates, tmp_path, audio, rate, text):
    write(estimates / "second" / "bass.wav", audio, rate)
    done = run("--estimates", estimates, "--report", code=1)
    assert text in done.stderr
    assert "1 failure on 1 track; what is finished is kept." in done.stderr
    assert len(list(tmp_path.glob("results/half/test/*.json"))) == 2
    assert text in (tmp_path / "results" / "report.md").read_text()


def test_samples_that_are_not_numbers_are_an_error(run, estimates):
    audio = np.zeros((10000, 2))
    audio[5000] = math.nan
    soundfile.write(estimates / "second" / "bass.wav", audio, RATE, "FLOAT")
    assert "NaN at 1.250 s" in run("--estimates", estimates, code=1).stderr


def test_a_renamed_estimate_is_an_error(run, estimates):
    (estimates / "second" / "vocals.wav").rename(estimates / "second" / "vocal.wav")
    done = run("--estimates", estimates, code=1)
    assert "lacks 'vocals' of 'second', which other tracks have" in done.stderr
    assert "Did you mean 'vocal'?" in done.stderr
    assert "1 failure on 1 track" in done.stderr


def test_estimates_that_are_all_renamed_are_an_error(run, estimates):
    for path in estimates.glob("*/vocals.wav"):
        path.rename(path.with_name("vox.wav"))
    done = run("--estimates", estimates, code=1)
    assert "an estimate of 'vox' and none of 'vocals'" in done.stderr
    assert "3 failures on 3 tracks" in done.stderr


def test_hidden_files_and_capitals_do_no_harm(run, estimates):
    (estimates / "first" / "._vocals.wav").write_bytes(b"as some systems leave behind")
    (estimates / "second" / "vocals.wav").rename(estimates / "second" / "Vocals.WAV")
    assert "second: 2 done" in run("--estimates", estimates).stderr


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


def test_an_unreadable_estimate_is_an_error(run, estimates):
    (estimates / "third" / "drums.wav").write_bytes(b"RIFF")
    assert "[3/3] third: half failed:" in run("--estimates", estimates, code=1).stderr


def test_a_missing_reference_is_named_and_the_others_are_measured(run, data, tmp_path):
    (data / "test" / "second" / "bass.wav").unlink()
    done = run(code=1)
    assert "failed: second: " in done.stderr
    assert "bass" in done.stderr
    assert len(list(tmp_path.glob("results/mixture/test/*.json"))) == 2


def test_without_any_good_track_nothing_is_measured(run, data, estimates):
    for path in data.glob("test/*/bass.wav"):
        path.write_bytes(b"RIFF")
    done = run("--estimates", estimates, code=1)
    assert "3 failures on 3 tracks" in done.stderr
    assert "estimates" not in done.stderr


def test_a_mixture_that_is_not_the_sum_is_a_warning(run, data):
    audio, _ = soundfile.read(data / "test" / "second" / "vocals.wav")
    write(data / "test" / "second" / "vocals.wav", audio / 4)
    done = run()
    assert "warning: second: the mixture minus its stems is at " in done.stderr


def test_an_empty_split_is_reported(run):
    assert "has no songs for train" in run("--split", "train", code=1).stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--metric", "sdr"), "Unknown metric 'sdr'"),
        (("--oracle", "iron"), "Unknown oracle 'iron'"),
        (("--engine", "numpy"), "Unknown engine 'numpy'"),
        (("--kind", "musdb"), "Unknown kind of data set 'musdb'"),
        (("--model", "tony"), "tony"),
        (("--model", "tiny", "--overlap", "2"), "overlap"),
        (("--estimates", "nowhere"), "'nowhere' holds no estimates of any of the 3 tracks"),
        (("--model", "tiny", "--model", "tiny"), "Two things to be measured are called 'tiny'"),
    ],
)
def test_wrong_usage_ends_before_any_work(run, tmp_path, words, text):
    assert text in run(*words, code=2).stderr
    assert not (tmp_path / "results").exists()


def test_data_and_output_are_asked_for(cli):
    assert "--data" in cli("evaluate", code=2).stderr


def test_a_model_is_not_tested_on_what_it_was_trained_on(run, tiny_models, tmp_path, monkeypatch):
    card = (tiny_models / "tiny.yaml").read_text()
    for path in tiny_models.iterdir():
        shutil.copy(path, tmp_path)
    card = card.replace("none: the weights are random", "MUSDB18-HQ train and test")
    (tmp_path / "leaky.yaml").write_text(card.replace("name: tiny", "name: leaky"))
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path))
    assert "it was trained on test" in run("--model", "leaky", code=2).stderr
    run("--model", "leaky", "--allow-leak")
    members = "members: [{model: tiny, stems: {vocals: vocals}}, {model: leaky}]"
    about = "name: both\ndescription: Two\nlicence: MIT\nstems: [drums, bass, other, vocals]\n"
    (tmp_path / "both.yaml").write_text(about + members)
    assert "'leaky' can't be tested on musdb18hq test" in run("--model", "both", code=2).stderr


def test_the_report_is_made_anew_from_results(cli, run, estimates, tmp_path):
    run("--estimates", estimates)
    assert not (tmp_path / "results" / "report.html").exists()
    cli("evaluate", "report", tmp_path / "results")
    assert (tmp_path / "results" / "report.html").exists()


def test_a_folder_that_cannot_be_made_is_told_before_any_work(run, tmp_path):
    (tmp_path / "results").write_text("in the way")
    assert "results' can't be made: there is a file of this name" in run(code=2).stderr


def test_a_report_that_cannot_be_written_is_one_more_failure(run, estimates, monkeypatch):
    def full(*args):
        raise ConfigError("Can't write 'report.md': No space left on device.")

    monkeypatch.setattr("separator.evaluation.report.write_report", full)
    (estimates / "third" / "drums.wav").write_bytes(b"RIFF")
    done = run("--estimates", estimates, "--report", code=1)
    assert "failed: third: half: " in done.stderr
    assert "failed: all tracks: report: Can't write 'report.md'" in done.stderr


def test_results_of_different_settings_are_not_averaged(cli, run, tmp_path):
    run("--model", "tiny")
    run("--model", "tiny", "--overlap", "0.5", "--limit", "1")
    done = cli("evaluate", "report", tmp_path / "results", code=2)
    assert "'tiny'" in done.stderr
    assert "different settings" in done.stderr


def test_folders_have_the_name_that_they_are_given(run, estimates, tmp_path):
    run("--estimates", f"rival={estimates}")
    assert (tmp_path / "results" / "rival" / "test" / "first.json").exists()


def test_each_data_set_needs_results_of_its_own(run, data, tmp_path):
    run()
    (tmp_path / "moved").mkdir()
    write_song(tmp_path / "moved" / "test" / "fourth", seed=4)
    done = run("--data", tmp_path / "moved", code=2)
    assert f"holds results of musdb18hq in '{data}', not of musdb18hq in" in done.stderr
    assert not (tmp_path / "results" / "mixture" / "test" / "fourth.json").exists()


def test_two_estimates_of_one_stem_are_refused(run, estimates):
    audio, rate = soundfile.read(estimates / "second" / "vocals.wav")
    soundfile.write(estimates / "second" / "vocals.flac", audio, rate)
    done = run("--estimates", estimates, code=2)
    assert "'vocals.wav' beside it are both estimates of 'vocals'" in done.stderr


def test_a_missing_mixture_is_named_and_the_sum_taken(run, data, tmp_path):
    (data / "test" / "second" / "mixture.wav").unlink()
    done = run()
    assert "warning: second: no file of the mixture" in done.stderr
    assert (tmp_path / "results" / "mixture" / "test" / "second.json").exists()


def test_a_folder_knows_its_identity(estimates):
    folder = Folder(estimates, "half", STEMS)
    assert folder.identity("first", "test") == folder.identity("first", "test")
    assert folder.identity("first", "test") != folder.identity("second", "test")


@pytest.fixture
def embedding(tmp_path):
    """A network that returns levels of pieces of 100 samples, as a TorchScript file."""
    import torch

    class Powers(torch.nn.Module):
        def forward(self, signal: torch.Tensor) -> torch.Tensor:
            return signal.unflatten(-1, [-1, 100]).square().mean(-1)

    path = tmp_path / "powers.pt"
    torch.jit.save(torch.jit.script(Powers()), path)
    return path


def test_a_users_embedding_is_one_more_metric(run, estimates, embedding, tmp_path):
    words = ("--estimates", estimates, "--embedding", f"powers:{RATE}:{embedding}")
    run(*words, "--report")
    scores = read_result(tmp_path / "results" / "half" / "test" / "first.json").targets[0].scores
    assert set(scores) == {"usdr", "embedding powers"}
    assert "## powers MSE, lower is better" in (tmp_path / "results" / "report.md").read_text()
    assert "first: 2 kept" in run(*words).stderr


@pytest.mark.parametrize(
    ("text", "code", "error"),
    [("powers.pt", 2, "wanted is NAME:HZ:FILE"), ("x:8000:nowhere.pt", 1, "nowhere.pt")],
)
def test_embeddings_are_looked_for_before_any_work(run, text, code, error):
    assert error in run("--embedding", text, code=code).stderr
