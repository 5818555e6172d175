"""Measure how fast training data come: segments per second from each source.

    python scripts/bench_training_data.py data/synthetic
    python scripts/bench_training_data.py data/synthetic --device cuda --batch 16 --workers 4

The folder is any that `separator.datasets` knows. Printed are segments per second (median and
range over rounds after a first one that doesn't count) and audio-seconds per second, for

    decode    songs read from their files at every segment, for comparison
    cache     songs from the memory-mapped cache, as recipes with `folders` do
    synthetic songs composed and rendered on the fly
    studio    the same, by other processes, and mixed on the device
    bank      clips re-pitched, placed and filtered in torch on the device
    augment   all augmentations, on batches that lie on the device
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from separator.datasets import Dataset, open_dataset
from separator.training.data.augmentation import (
    AugmentationOptions,
    Codec,
    Compressor,
    Distortion,
    Drop,
    Equalizer,
    Gain,
    Polarity,
    Remix,
    Repitch,
    Reverb,
    Swap,
    augment,
)
from separator.training.data.bank import Banked, build_bank
from separator.training.data.build import DataOptions, Folder, build_data, folder_library
from separator.training.data.sources import Plan, Synthetic
from separator.training.data.studio import Studio

RATE = 44100
STEMS = ("drums", "bass", "other", "vocals")
EVERYTHING = AugmentationOptions(
    repitch=Repitch(),
    equalizer=Equalizer(),
    compressor=Compressor(),
    reverb=Reverb(),
    swap=Swap(),
    polarity=Polarity(),
    remix=Remix(),
    gain=Gain(),
    drop=Drop(),
    distortion=Distortion(),
    codec=Codec(),
)


def forever(options: DataOptions, device: str) -> Iterator[Tensor]:
    """Yield batches without an end."""
    batches = build_data(options, stems=STEMS, sample_rate=RATE, channels=2, device=device)
    while True:
        for batch in batches:
            yield batch.to(device, non_blocking=True)


def decoded(dataset: Dataset, options: DataOptions) -> Iterator[Tensor]:
    """Yield batches decoded from the files: a song and a place for each stem."""
    rng = np.random.default_rng(0)
    samples = round(options.segment * RATE)

    def stem(name: str) -> np.ndarray:
        track = dataset.tracks[int(rng.integers(len(dataset.tracks)))]
        return track.read(name, int(rng.integers(max(1, track.samples - samples))), samples)

    while True:
        segments = [np.stack([stem(name) for name in STEMS]) for _ in range(options.batch)]
        yield torch.from_numpy(np.stack(segments))


def augmented(batch: Tensor) -> Iterator[Tensor]:
    """Yield the mixtures of one batch, augmented ever anew."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield augment(batch, EVERYTHING, generator, RATE)[0]


def report(name: str, batches: Iterator[Tensor], options: argparse.Namespace) -> None:
    """Time rounds of batches; the first one warms up."""
    wait: Callable[[], None] = (
        torch.cuda.synchronize if options.device.startswith("cuda") else lambda: None
    )
    rates = []
    for _ in range(options.rounds + 1):
        wait()
        start = time.perf_counter()
        for _ in range(options.steps):
            next(batches)
        wait()
        rates.append(options.steps * options.batch / (time.perf_counter() - start))
    rates = rates[1:]
    middle = statistics.median(rates)
    print(
        f"{name:10} {middle:9.1f} segments/s ({min(rates):.1f} to {max(rates):.1f}), "
        f"{middle * options.segment:9.0f} audio-seconds/s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a data set with a training split")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--segment", type=float, default=6.0, help="seconds")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10, help="batches in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="which of the sources to measure")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        shape = {"segment": options.segment, "batch": options.batch, "workers": options.workers}
        folder = Folder(path=str(options.folder))
        songs = DataOptions(folders=(folder,), cache=f"{scratch}/cache", **shape)
        plan = Plan(STEMS, RATE, 2, round(options.segment * RATE), options.batch)
        path = Path(scratch) / "bank.safetensors"
        start = time.perf_counter()
        library = folder_library(songs, plan)
        print(f"decoding into the cache took {time.perf_counter() - start:.1f} s")
        build_bank(library, STEMS, sample_rate=RATE, seconds=3.0).save(path)
        dataset = open_dataset(options.folder, split="train", stems=STEMS)
        banked = DataOptions(bank=Banked(path=str(path)), **shape)
        studio = Studio(processes=max(1, options.workers))
        sources: dict[str, Callable[[], Iterator[Tensor]]] = {
            "decode": lambda: decoded(dataset, songs),
            "cache": lambda: forever(songs, options.device),
            "synthetic": lambda: forever(DataOptions(synthetic=Synthetic(), **shape), "cpu"),
            "studio": lambda: forever(DataOptions(studio=studio, **shape), options.device),
            "bank": lambda: forever(banked, options.device),
            "augment": lambda: augmented(next(forever(songs, options.device))),
        }
        for name in options.only or sources:
            report(name, sources[name](), options)


if __name__ == "__main__":
    main()
