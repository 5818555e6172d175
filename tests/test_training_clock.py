"""Runs that end by the clock."""

import itertools

import pytest
from training_runs import recipe

from separator.training import clock
from separator.training.run import read_checkpoint, train
from separator.training.schedules import ScheduleOptions

pytest_plugins = ["training_runs"]
pytestmark = pytest.mark.usefixtures("noise")


@pytest.fixture
def seconds(monkeypatch):
    """Let the clock go on by a second whenever it is read."""
    ticks = itertools.count()
    monkeypatch.setattr(clock, "monotonic", lambda: float(next(ticks)))


def rate(folder):
    return read_checkpoint(folder / "last.ckpt")["optimizer_states"][0]["param_groups"][0]["lr"]


def plan(**changes):
    cosine = {"name": "cosine"}
    return recipe(steps=1000, minutes=0.2, schedule=cosine, save={"every": 3}, **changes)


def test_time_ends_a_run_and_the_rate(tmp_path, seconds):
    result = train(plan(), tmp_path)
    assert result.step == 12  # a second each
    assert rate(tmp_path) == pytest.approx(0.0, abs=1e-9)


def test_a_resumed_run_has_the_time_that_is_left(tmp_path, seconds):
    assert train(plan(), tmp_path, until=6).step == 6
    assert rate(tmp_path) == pytest.approx(0.001 / 2)  # half the time, half of the cosine
    assert train(plan(), tmp_path, resume=True).step == 12


def test_validations_take_no_time(tmp_path, seconds, validation):
    assert train(plan(validation=validation), tmp_path).step == 12


def test_steps_end_a_run_that_has_time(tmp_path, seconds):
    short = plan().model_copy(update={"steps": 4})
    assert train(short, tmp_path).step == 4


def test_the_schedule_follows_what_is_further():
    cosine = ScheduleOptions(name="cosine")
    assert cosine.scale(10, 100, 0.5) == pytest.approx(0.5)
    assert cosine.scale(50, 100, 0.1) == pytest.approx(0.5)
