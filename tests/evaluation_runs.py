"""Three short songs, estimates of them and runs of `separator evaluate` on them, for the tests."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

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
