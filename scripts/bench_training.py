"""Time our training loop beside that of Music-Source-Separation-Training: steps per second.

    python scripts/bench_training.py [FOLDER] [--peer-python PROGRAM] [--rounds 5] [--steps 4]
    python scripts/bench_training.py --device cuda --precision bfloat16 --size paper --workers 4

Both train the same BS-RoFormer, with the same precision, batches, loss (L1 and STFTs of five
windows), AdamW and clipping, on songs of FOLDER, which is laid out like MUSDB18-HQ (a few are
composed unless given). Ours is what `separator train` runs. The other loop is restated from that
project's train.py and dataset.py: every stem of every item is read from its file at a random place
by soundfile, torch's DataLoader makes the batch, and a plain loop makes the step. Its network is
the port in pymss-core, run by `--peer-python`, an interpreter that has it; without one it is ours,
so that the loops alone are compared.

Each loop is a process of its own. They take turns, a few steps each; the first turn isn't counted.
Printed are medians of the turns, their ratio, and the share of the time spent waiting for data.

With `--size paper` (220 M parameters) each process takes 10 GB at `--batch 1 --segment 1.5`, and a
step takes up to half a minute on two cores: begin with `--steps 1`.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from turns import Worker

RATE = 44_100
STEMS = ("drums", "bass", "other", "vocals")
WINDOWS = (4096, 2048, 1024, 512, 256)
HOP = 147
#: The networks to time: those of configs/bs_roformer_laptop.yaml, and of the papers' width.
SIZES: dict[str, dict[str, Any]] = {
    "laptop": {
        "dim": 64,
        "depth": 4,
        "heads": 4,
        "dim_head": 16,
        "n_fft": 4096,
        "hop_length": 1024,
        "bands": [4] * 12 + [8] * 8 + [16] * 8 + [48] * 7 + [128] * 6 + [705],
        "mask_estimator_depth": 1,
    },
    "paper": {"dim": 384, "depth": 6, "heads": 8, "dim_head": 64, "n_fft": 2048, "hop_length": 441},
}


#: Options that both loops must know.
PASSED_ON = ("size", "batch", "segment", "steps", "rounds", "workers", "threads")
PASSED_ON += ("device", "precision")


def start(python: str, kind: str, folder: Path, options: argparse.Namespace) -> Worker:
    """Start a process with one of the loops, which trains some steps when it is its turn."""
    passed = [part for name in PASSED_ON for part in (f"--{name}", getattr(options, name))]
    return Worker.start(python, __file__, [folder, "--loop", kind, *passed])


def turn(loop: Worker) -> tuple[float, float]:
    """Let a loop train; return steps per second and the share of the time spent waiting."""
    line = loop.ask()
    if line is None:
        raise SystemExit(f"A loop ended early ({loop.end()}); was memory too small for both?")
    speed, waiting = map(float, line.split())
    return speed, waiting


def train_ours(options: argparse.Namespace) -> None:
    """Be our loop, as the command runs it; it pauses in its reports."""
    from separator.training.callbacks import Report
    from separator.training.recipe import resolve
    from separator.training.run import train

    recipe = resolve(
        {
            "description": "For timing",
            "network": "bs_roformer",
            "parameters": SIZES[options.size],
            "stems": list(STEMS),
            "data": {
                "segment": options.segment,
                "batch": options.batch,
                "workers": options.workers,
                "coherent": 0.0,
                "folders": [{"path": str(options.folder)}],
                "cache": str(options.folder / "cache"),
            },
            "augmentation": {"gain": {}},
            "loss": {"l1": 1.0, "multi_resolution_stft": {"weight": 1.0, "hop_length": HOP}},
            "optimizer": {"name": "adamw", "rate": 1e-4},
            "clip": 1.0,
            "precision": options.precision,
            "steps": options.steps * (options.rounds + 1),
            "save": {"every": 10**6},
            "log": {"every": options.steps, "tensorboard": False},
            "hardware": {"accelerator": {"cpu": "cpu", "cuda": "gpu"}[options.device]},
        },
        "benchmark",
    )

    def report(done: Report) -> None:
        print(done.speed / (options.batch * options.segment), done.waiting, flush=True)
        sys.stdin.readline()

    sys.stdin.readline()
    with tempfile.TemporaryDirectory() as scratch:
        train(recipe, Path(scratch) / "run", report=report)


def train_theirs(options: argparse.Namespace) -> None:
    """Be the other loop."""
    import torch
    from torch.utils.data import DataLoader

    device = torch.device(options.device)
    network = their_network(SIZES[options.size]).train().to(device)
    cast = torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16")
    items = options.batch * options.steps * (options.rounds + 1)
    dataset = Chunks(options.folder / "train", round(options.segment * RATE), items)
    loader = DataLoader(dataset, options.batch, shuffle=True, num_workers=options.workers)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    batches = iter(loader)
    sys.stdin.readline()
    for _ in range(options.rounds + 1):
        began, waited = time.perf_counter(), 0.0
        for _ in range(options.steps):
            asked = time.perf_counter()
            targets, mixture = next(batches)
            waited += time.perf_counter() - asked
            targets = targets.to(device)
            with cast:
                estimates = network(mixture.to(device))
            loss = their_loss(estimates.float(), targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()
        took = time.perf_counter() - began
        print(options.steps / took, waited / took, flush=True)
        sys.stdin.readline()


def their_network(parameters: dict[str, Any]) -> Any:
    """Return the peer's network, or ours where there is no peer."""
    settings = {"stems": STEMS, "bands": None, **parameters}
    try:
        import pymss_core  # noqa: F401
    except ImportError:
        from separator.networks import build_network

        return build_network("bs_roformer", **settings)
    from make_reference_outputs import roformer

    from separator.spectral.bands import BS_ROFORMER_WIDTHS

    return roformer(settings | {"bands": settings["bands"] or BS_ROFORMER_WIDTHS})


class Chunks:
    """Read a random place of a random song for each stem, and sum them with random gains."""

    def __init__(self, folder: Path, samples: int, items: int) -> None:
        import soundfile

        self.samples, self.items = samples, items
        self.files = {
            stem: [(path, soundfile.info(path).frames) for path in folder.glob(f"*/{stem}.wav")]
            for stem in STEMS
        }

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, _index: int) -> tuple[Any, Any]:
        import numpy as np
        import torch

        stems = torch.tensor(np.stack([self.read(stem) for stem in STEMS]))
        stems *= torch.empty(len(STEMS)).uniform_(0.5, 1.5)[:, None, None]
        return stems, stems.sum(0)

    def read(self, stem: str) -> Any:
        """Return a chunk that isn't nearly silent, `(channels, time)`."""
        import numpy as np
        import soundfile

        for _ in range(100):
            path, frames = random.choice(self.files[stem])
            start = random.randint(0, frames - self.samples)
            chunk, _ = soundfile.read(path, self.samples, start, dtype="float32")
            if np.abs(chunk).mean() >= 0.001:
                break
        return chunk.T


def their_loss(estimates: Any, targets: Any) -> Any:
    """Return L1 plus L1 of the complex STFTs of five windows, as their BS-RoFormer does."""
    import torch
    import torch.nn.functional as F

    loss = F.l1_loss(estimates, targets)
    for size in WINDOWS:
        options = {
            "n_fft": max(size, 2048),
            "win_length": size,
            "hop_length": HOP,
            "return_complex": True,
            "window": torch.hann_window(size, device=targets.device),
        }
        pair = (torch.stft(x.flatten(0, 2), **options) for x in (estimates, targets))
        loss = loss + F.l1_loss(*pair)
    return loss


def compose(folder: Path, songs: int = 6) -> None:
    """Write a few songs to train on."""
    from make_synthetic_musdb import write_song

    from separator.synthesis import Palette

    for seed in range(songs):
        write_song(folder / f"train/{seed:07d}", seed, duration=20.0, palette=Palette("train"))


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Let both loops take turns; print the table."""
    pythons = {"theirs": options.peer_python or sys.executable, "ours": sys.executable}
    loops = {kind: start(python, kind, folder, options) for kind, python in pythons.items()}
    turns: dict[str, list[tuple[float, float]]] = {kind: [] for kind in loops}
    for _ in range(options.rounds + 1):
        for kind, loop in loops.items():
            turns[kind].append(turn(loop))
    for loop in loops.values():
        loop.end()
    names = {"theirs": "Music-Source-Separation-Training's loop", "ours": "separator train"}
    medians = {}
    for kind, name in names.items():
        speeds, waiting = zip(*turns[kind][1:], strict=True)
        medians[kind] = statistics.median(speeds)
        print(
            f"  {name:<40} {medians[kind]:7.3f} steps/s ({min(speeds):.3f} to {max(speeds):.3f}), "
            f"{statistics.median(waiting):6.2%} waiting for data"
        )
    print(f"  ratio {medians['ours'] / medians['theirs']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="laid out like MUSDB18-HQ")
    parser.add_argument("--peer-python", help="an interpreter that has pymss-core")
    parser.add_argument("--size", choices=SIZES, default="laptop")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--segment", type=float, default=3.0, help="seconds")
    parser.add_argument("--steps", type=int, default=4, help="in a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--loop", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        import torch

        warnings.filterwarnings("ignore")
        torch.set_num_threads(options.threads)
        (train_ours if options.loop == "ours" else train_theirs)(options)
        return
    with tempfile.TemporaryDirectory() as scratch:
        if options.folder is None:
            compose(Path(scratch))
        compare(options.folder or Path(scratch), options)


if __name__ == "__main__":
    main()
