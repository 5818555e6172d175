"""The script that writes synthetic songs as a folder of MUSDB18-HQ's shape."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from separator.datasets import open_dataset

ROOT = Path(__file__).parent.parent
STEMS = ("drums", "bass", "other", "vocals")


def make(folder: Path, *options: str) -> list[str]:
    """Run the script without other programs, and return the songs that it names."""
    script = str(ROOT / "scripts/make_synthetic_musdb.py")
    counts = ["--train", "1", "--test", "1", "--duration", "2", "--jobs", "1", "--plain"]
    command = [sys.executable, script, str(folder), *counts, *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return sorted(line.split()[-1] for line in done.stdout.splitlines())


@pytest.mark.slow
def test_songs_are_whole_made_once_and_read_as_musdb18_hq(tmp_path):
    assert make(tmp_path / "a") == ["0000000", "1000000"]
    song = tmp_path / "a/train/0000000"
    stems = {name: soundfile.read(song / f"{name}.wav", dtype="int16")[0] for name in STEMS}
    mixture = soundfile.read(song / "mixture.wav", dtype="int16")[0]
    assert mixture.shape == (2 * 44100, 2) and mixture.std() > 300
    np.testing.assert_array_equal(sum(stems[name].astype(int) for name in STEMS), mixture)
    (track,) = open_dataset(tmp_path / "a", split="test").tracks
    assert set(track.stems) == set(STEMS)

    (song / "mixture.wav").unlink()  # as if it had been interrupted
    other = tmp_path / "a/test/1000000/bass.wav"
    untouched = other.stat().st_mtime_ns
    make(tmp_path / "a")
    assert np.array_equal(soundfile.read(song / "mixture.wav", dtype="int16")[0], mixture)
    assert other.stat().st_mtime_ns == untouched

    make(tmp_path / "b", "--test", "0", "--style", "drum and bass")
    styled = soundfile.read(tmp_path / "b/train/0000000/mixture.wav", dtype="int16")[0]
    assert not np.array_equal(styled, mixture)
