"""Small data sets for the tests, laid out like the real ones."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

RATE = 8000
FOUR = ("drums", "bass", "other", "vocals")


@pytest.fixture
def cache_folder(tmp_path, monkeypatch) -> Path:
    """A cache of its own for each test."""
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path) -> Path:
    """An empty folder for a data set, whose name is no split's."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def noise(seed: int, samples: int = 1000, channels: int = 2) -> np.ndarray:
    """Return noise in steps of 2^-12: sums and files of 16 bits hold it exactly."""
    steps = np.random.default_rng(seed).integers(-512, 512, (channels, samples))
    return (steps / 4096).astype(np.float32)


def write(path: Path, signal: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    subtype = "FLOAT" if path.suffix == ".wav" else "PCM_16"
    soundfile.write(path, signal.T, rate, subtype)


def write_song(folder: Path, stems=FOUR, mixture: str | None = "mixture.wav", seed: int = 0):
    """Write a file for each stem and, by default, their sum; return the stems' signals."""
    signals = {stem: noise(seed + i) for i, stem in enumerate(stems)}
    for stem, signal in signals.items():
        write(folder / f"{stem}.wav", signal)
    if mixture:
        write(folder / mixture, np.sum(list(signals.values()), axis=0))
    return signals


def write_stem_file(path: Path, hertz: list[float], seconds: float = 2.5, rate: int = 44100):
    """Write an MP4 file with one AAC stream for each tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    with av.open(str(path), "w", format="mp4") as container:
        streams = [container.add_stream("aac", rate=rate, layout="stereo") for _ in hertz]
        packets = []
        for stream, tone in zip(streams, hertz, strict=True):
            stream.bit_rate = 128000
            signal = np.repeat(0.2 * np.sin(2 * np.pi * tone * time), 2).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(signal[None], "flt", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            packets += stream.encode(frame) + stream.encode(None)
        container.mux(packets)


def write_moises(folder: Path, stems: dict[str, list[np.ndarray]], **data: str):
    """Write a song as MoisesDB lays it out."""
    folder.mkdir(parents=True)
    description = {"stems": [], **data}
    for name, signals in stems.items():
        files = [{"id": f"{name}-{i}", "extension": "wav"} for i in range(len(signals))]
        description["stems"].append({"stemName": name, "tracks": files})
        for file, signal in zip(files, signals, strict=True):
            write(folder / name / f"{file['id']}.wav", signal)
    (folder / "data.json").write_text(json.dumps(description))
