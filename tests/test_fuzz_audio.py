"""The script that reads damaged files: it finds nothing, and would tell of what it finds."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def fuzzing(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import fuzz_audio

    return fuzz_audio


@pytest.mark.slow
def test_damaged_files_are_read_or_refused():
    done = subprocess.run(
        [sys.executable, SCRIPTS / "fuzz_audio.py", "--seconds", "10", "--seed", "7"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "refused" in done.stdout.splitlines()[-1]


def test_a_seed_makes_the_same_damage_again(fuzzing):
    originals = {"a.wav": bytes(range(256)) * 8, "b.mp3": bytes(1000)}
    made = [[fuzzing.mutated(originals, random.Random(seed)) for seed in range(50)] for _ in "ab"]
    assert made[0] == made[1]
    assert len({data for _, data in made[0]}) > 40


def test_an_error_that_nobody_foresaw_is_a_defect(fuzzing, monkeypatch, song):
    path = song("s.wav")
    assert fuzzing.attempt(path, with_tags=True) == "audio"
    path.write_bytes(b"no music")
    assert fuzzing.attempt(path, with_tags=False).startswith("refused: ")

    def broken(path):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(fuzzing, "open_audio", broken)
    assert fuzzing.attempt(path, with_tags=False) == "defect: ZeroDivisionError: division by zero"
