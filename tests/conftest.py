"""Signals, files and models that the tests share; all are synthesised."""

import gc
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

# The tests' networks are tiny: threads that wait for each other only make them slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import pytest

from separator.audio.reader import open_audio
from separator.audio.writer import AudioWriter

pytest.register_assert_rewrite(
    "browsing", "evaluation_runs", "gain_models", "metric_signals", "songsets", "training_runs"
)


def pytest_collection_finish() -> None:
    """Leave the million objects of all libraries out of later collections of garbage.

    Each would take half a second, and the web app asks for one after every job.
    """
    gc.collect()
    gc.freeze()


Signal = npt.NDArray[np.float32]


def weights_entry(file: Path, format: str = "safetensors") -> dict[str, object]:
    """Return what a card beside a file of weights says of it."""
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return {"file": file.name, "sha256": sha256, "bytes": len(content), "format": format}


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> Path:
    """A folder with the card `tiny` and its random weights: a BS-RoFormer of four stems."""
    import torch
    import yaml
    from safetensors.torch import save_file

    from separator.networks import build_network

    folder = tmp_path_factory.mktemp("models")
    parameters = {
        "dim": 8,
        "depth": 1,
        "heads": 1,
        "dim_head": 8,
        "n_fft": 512,
        "hop_length": 256,
        "bands": [1, 8, 56, 192],
        "mlp_expansion_factor": 1,
    }
    stems = ["drums", "bass", "other", "vocals"]
    torch.manual_seed(0)
    network = build_network("bs_roformer", stems=stems, **parameters)
    weights = folder / "tiny.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, weights)
    card = {
        "name": "tiny",
        "description": "Random weights, for tests",
        "network": "bs_roformer",
        "parameters": parameters,
        "stems": stems,
        "segment": 1.0,
        "overlap": 0.25,
        "weights": weights_entry(weights),
        "licence": "MIT",
        "training_data": "none: the weights are random",
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(card))
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_models):
    """A `Separator` with the model `tiny`, in float32 on the CPU."""
    from separator.api import Separator

    return Separator(tiny_models / "tiny.yaml", device="cpu", precision="float32")


@pytest.fixture
def one_thread():
    """Let torch compute in one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def cli(tiny_models, tmp_path, tmp_path_factory, monkeypatch, one_thread):
    """A function that runs a command in an empty folder, with the model `tiny`, in one thread."""
    import shutil

    from typer.testing import CliRunner

    import separator
    from separator.cli import app

    monkeypatch.chdir(tmp_path)
    models = tmp_path_factory.mktemp("models")  # what a command adds is gone with the test
    shutil.copytree(tiny_models, models, dirs_exist_ok=True)
    monkeypatch.setenv("SEPARATOR_MODELS", str(models))
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path / ".cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(separator.__file__).parent.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*words: object, code: int = 0):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result

    return run


def music(seconds: float, sample_rate: int = 44100, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Return a chord with noise, `(channels, time)` float32, peak about 0.5."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (110, 277.2, 440)) / 3
    noise = generator.standard_normal((channels, time.size)) / 8
    pan = np.linspace(0.6, 1.0, channels)[:, None]
    return (0.4 * (chord * pan + noise)).astype(np.float32)


def make_signal(samples: int, sample_rate: int = 44100, channels: int = 2) -> Signal:
    """Return chirps over the lower band, another one in each channel, that peak at 0.4."""
    time = np.arange(samples) / sample_rate
    top = sample_rate / 8
    sweep = top / max(time[-1], 1.0) / 2
    return np.stack(
        [
            0.4 * np.sin(2 * np.pi * ((90 + 31 * channel) * time + sweep * time**2))
            for channel in range(channels)
        ]
    ).astype(np.float32)


def read_all(path: Path, **options: float) -> Signal:
    """Return a whole file as (channels, time)."""
    with open_audio(path, **options) as reader:
        return np.concatenate(list(reader), axis=1)


def lag(estimate: Signal, reference: Signal) -> int:
    """Return by how many samples the first channel of `estimate` comes later, by correlation."""
    size = estimate.shape[1] + reference.shape[1]
    spectrum = np.fft.rfft(estimate[0], size) * np.conj(np.fft.rfft(reference[0], size))
    best = int(np.argmax(np.fft.irfft(spectrum, size)))
    return best if best < size // 2 else best - size


@pytest.fixture
def song(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a signal to a file of that name, by our own writer."""

    def write(
        name: str, signal: Signal | None = None, rate: int = 44100, **options: object
    ) -> Path:
        signal = make_signal(rate, rate) if signal is None else signal
        with AudioWriter(tmp_path / name, rate, len(signal), **options) as writer:
            writer.write(signal)
        return tmp_path / name

    return write


@pytest.fixture
def service(tiny_models, tmp_path, monkeypatch):
    """Yield a service of the web app with the model `tiny`, on the CPU."""
    from separator.web.service import Service
    from separator.web.settings import AppSettings

    monkeypatch.setenv("SEPARATOR_MODELS", str(tiny_models))
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path / "cache"))
    service = Service(AppSettings(device="cpu", max_seconds=20, max_bytes=8_000_000))
    yield service
    service.close()


def finished(job):
    """Return a job of the web app when it has ended."""
    assert job.ended.wait(300), job.state  # only a machine that does much else needs so long
    return job


@pytest.fixture
def pair(tmp_path: Path):
    """Return a song of the web app: a mixture and two stems, one second, in 24 bit."""
    from separator.web.songs import Song, Track

    rate = 44100
    stems = [make_signal(rate, rate) * 0.5, make_signal(rate, rate)[:, ::-1] * 0.25]
    signals = {"mixture": stems[0] + stems[1], "a": stems[0], "b": stems[1]}
    for name, signal in signals.items():
        with AudioWriter(tmp_path / f"{name}.wav", rate, 2, bit_depth=24) as writer:
            writer.write(signal)
    tracks = tuple(Track(name, tmp_path / f"{name}.wav") for name in signals)
    song = Song("token", tmp_path, "A song", rate, 2, rate, tracks)
    song.draw()
    return song
