"""`separator train`: from a recipe to stems, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from training_runs import TINY

from separator.training import task as task_module
from separator.training.data.build import build_data
from separator.training.run import read_checkpoint, saved_recipe

pytest_plugins = ["training_runs"]
pytestmark = pytest.mark.usefixtures("noise")


def test_the_command_trains_stops_resumes_exports_and_separates(cli, tmp_path, song):
    Path("small.yaml").write_text(yaml.safe_dump(TINY))
    done = cli("train", "--config", "small.yaml", "--set", "steps=3", "--until", "2")
    assert done.stdout == "runs/small\n"
    assert "step 2/2: loss" in done.stderr
    assert "Trained 2 steps" in done.stderr
    done = cli("train", "-o", "runs/small", "--resume", "--set", "clip=1.0")
    assert "The recipe has changed since step 2: clip=1.0 (was None)" in done.stderr
    assert read_checkpoint(Path("runs/small/last.ckpt"))["global_step"] == 3
    done = cli("train", "export", "runs/small", "models", "--licence", "MIT")
    assert done.stdout == "models/small.yaml\n"
    cli("separate", song("song.wav"), "-o", "out", "--model", "models/small.yaml")
    assert sorted(path.name for path in Path("out/song").iterdir()) == ["other.wav", "vocals.wav"]


def test_the_command_says_when_time_is_up(cli):
    Path("small.yaml").write_text(yaml.safe_dump(TINY))
    done = cli("train", "--config", "small.yaml", "--set", "minutes=1e-9")
    assert "Trained 1 steps of 4 in 1e-09 minutes." in done.stderr


def test_the_command_refuses_in_one_line(cli):
    for words, message in (
        (["train"], "What to train?"),
        (["train", "--config", "debgu"], "Did you mean 'debug'"),
        (["train", "--config", "debug", "--set", "stpes=1"], "Did you mean 'steps'"),
        (["train", "--resume", "-o", "runs/none"], "no run in 'runs/none'"),
    ):
        result = cli(*words, code=2)
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_faulty_data_set_is_shown_as_a_table(cli, song, monkeypatch):
    monkeypatch.setattr(task_module, "build_data", build_data)  # not noise
    louder = np.linspace(0.1, 0.5, 64000) * np.random.default_rng(0).standard_normal((2, 64000))
    for number in range(2):
        for stem in ("vocals", "other")[: 2 - number]:
            Path(f"songs/{number}").mkdir(parents=True, exist_ok=True)
            song(f"songs/{number}/{stem}.wav", 0.3 * louder.astype(np.float32), 8000)
    data = {"segment": 0.1, "batch": 1, "folders": [{"path": "songs", "split": "all"}]}
    Path("small.yaml").write_text(yaml.safe_dump({**TINY, "steps": 1, "data": data}))
    result = cli("train", "--config", "small.yaml", code=2)
    assert "no stem 'other'" in result.stdout
    assert "1 of 2 songs" in result.stderr
    result = cli("train", "--config", "small.yaml", "--allow-partial")
    assert result.stdout == "runs/small\n"
    assert "left out: 1: no stem 'other'; expected: vocals, other" in result.stderr
    assert saved_recipe(Path("runs/small/last.ckpt")).allow_partial


def test_missing_libraries_are_named(cli, monkeypatch):
    from separator.cli import train as command

    monkeypatch.setattr(command, "_LIBRARIES", ("json", "no_such_library"))
    result = cli("train", "list", code=1)
    assert "needs no_such_library" in result.stderr
    assert "pip install 'separator[train]'" in result.stderr


def test_the_recipes_are_listed(cli):
    lines = cli("train", "list").stdout.splitlines()
    assert {"debug", "pocket", "finetune", "scnet"} <= {line.split()[0] for line in lines}


def test_the_dry_run_says_what_a_recipe_costs(cli):
    Path("small.yaml").write_text(yaml.safe_dump(TINY))
    done = cli("train", "--config", "small.yaml", "--dry-run", "--set", "data.batch=1")
    for word in (
        "(1, 2, 800)",
        "(1, 2, 2, 800)",
        "parameters",
        "MACs",
        "memory",
        "steps per second",
    ):
        assert word in done.stdout
    assert not Path("runs").exists()


def test_the_dry_run_of_pruning_is_of_what_is_left(cli):
    Path("small.yaml").write_text(yaml.safe_dump(TINY))

    def macs(heads: int, *ratio: str) -> str:
        changes = ("--set=parameters.ff_expansion=1", f"--set=parameters.heads={heads}")
        done = cli("train", "--config", "small.yaml", "--dry-run", *changes, *ratio)
        return next(line for line in done.stdout.splitlines() if line.startswith("MACs"))

    assert macs(2, "--prune", "0.5") == macs(1) != macs(2)
