"""Training runs that are told to stop: they save, say how to go on, and go on exactly."""

import multiprocessing
import signal
from pathlib import Path

import pytest
import yaml
from training_runs import TINY, Noise, assert_learnt_the_same, recipe

from separator.training import task as task_module
from separator.training.callbacks import Report, Stopped
from separator.training.data.batches import Batches, outlive_one_signal
from separator.training.run import read_checkpoint, train

pytest_plugins = ["training_runs"]
pytestmark = pytest.mark.usefixtures("noise")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends(tmp_path, number):
    """The step in which it comes is finished; afterwards, signals do what they did before."""
    before = signal.getsignal(number)

    def report(report: Report) -> None:
        if report.step == 2:
            signal.raise_signal(number)

    plan = recipe(steps=6)
    with pytest.raises(Stopped) as stop:
        train(plan, tmp_path / "run", report=report)
    assert stop.value.signal == number
    assert signal.getsignal(number) == before
    assert stop.value.step == read_checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 2
    train(plan, tmp_path / "run", resume=True)
    train(plan, tmp_path / "whole")
    assert_learnt_the_same(tmp_path / "run", tmp_path / "whole")


def test_a_signal_breaks_a_validation_off(tmp_path, validation, monkeypatch):
    """What is saved is the state before it, from which the run goes on as if nothing had been."""
    plan = recipe(steps=6, validation=validation, ema=0.5, save={"every": 100, "best": 1})
    train(plan, tmp_path / "whole")
    separate = task_module.Task.separate

    def interrupted(task, mixture):
        if task.global_step == 4:
            signal.raise_signal(signal.SIGTERM)
        return separate(task, mixture)

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="step 4 by SIGTERM"):
        patch.setattr(task_module.Task, "separate", interrupted)
        train(plan, tmp_path / "run")
    assert read_checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 4
    reports: list[Report] = []
    train(plan, tmp_path / "run", resume=True, report=reports.append)
    assert [report.step for report in reports if "sdr/mean" in report.metrics] == [4, 6]
    assert_learnt_the_same(tmp_path / "run", tmp_path / "whole")
    best = [[path.name for path in (tmp_path / run / "best").iterdir()] for run in ("run", "whole")]
    assert best[0] == best[1]


def test_ctrl_c_before_the_first_step_is_no_silent_end(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Noise, "__getitem__", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_outlive_the_signal_that_everybody_gets(number):
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        outlive_one_signal(0)
        signal.raise_signal(number)
        assert signal.getsignal(number) == signal.SIG_DFL  # the next one ends it
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@pytest.mark.slow
def test_workers_end_with_the_run(tmp_path, monkeypatch):
    """Python's end would wait for those that are left, which ignore its signal."""
    before = multiprocessing.active_children()  # of other tests
    batches = Batches(Noise(2, 2, 800), 4, workers=1)
    monkeypatch.setattr(task_module, "build_data", lambda *_, **__: batches)
    train(recipe(steps=2), tmp_path)
    assert batches.position >= 2
    assert set(multiprocessing.active_children()) <= set(before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_command_says_how_to_go_on_after_a_signal(cli, monkeypatch, number, code):
    def stop(*_, **__):
        raise Stopped(3, number)

    monkeypatch.setattr("separator.training.run.train", stop)
    Path("small.yaml").write_text(yaml.safe_dump(TINY))
    result = cli("train", "--config", "small.yaml", "--output", "my runs/a&b", code=code)
    assert f"Stopped at step 3 by {number.name}" in result.stderr
    assert "separator train --output 'my runs/a&b' --resume" in result.stderr  # for any shell
