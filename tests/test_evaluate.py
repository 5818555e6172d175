"""`separator evaluate`: a whole run on small data, and going on with it."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from evaluation_runs import RATE, STEMS, write

from separator.evaluation.methods import OracleMethod
from separator.evaluation.results import read_result

pytest_plugins = ["evaluation_runs"]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
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
    run("--estimates", estimates, "--metric", "csdr, csir", "--report")
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


def test_asking_for_another_metric_keeps_the_earlier_ones(run, tmp_path):
    run()
    path = tmp_path / "results" / "mixture" / "test" / "second.json"
    before = read_result(path)
    assert "second: 1 done" in run(metric="log_wmse").stderr
    after = read_result(path)
    assert after.targets[0].scores == before.targets[0].scores | {
        "log_wmse": after.targets[0].scores["log_wmse"]
    }
    assert len(after.targets[0].scores) == len(before.targets[0].scores) + 1
    assert after.targets[0].frames.keys() == before.targets[0].frames.keys()


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


def test_an_interrupted_run_keeps_what_is_finished(run, monkeypatch):
    estimate = OracleMethod.estimate

    def interrupted(oracle, song, cancel=None):
        if song.name == "second":
            raise KeyboardInterrupt
        return estimate(oracle, song, cancel)

    with monkeypatch.context() as patch:
        patch.setattr(OracleMethod, "estimate", interrupted)
        assert "Interrupted." in run(code=130).stderr
    assert "first: 1 kept" in run().stderr


def test_settings_of_a_model_make_its_results_stale(run):
    run("--model", "tiny")
    assert "first: 2 kept" in run("--model", "tiny").stderr
    assert "first: 1 done, 1 kept" in run("--model", "tiny", "--overlap", "0.5").stderr


def test_the_report_is_made_anew_from_results(cli, run, estimates, tmp_path):
    run("--estimates", estimates)
    assert not (tmp_path / "results" / "report.html").exists()
    cli("evaluate", "report", tmp_path / "results")
    assert (tmp_path / "results" / "report.html").exists()


def test_folders_have_the_name_that_they_are_given(run, estimates, tmp_path):
    run("--estimates", f"rival={estimates}")
    assert (tmp_path / "results" / "rival" / "test" / "first.json").exists()


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
