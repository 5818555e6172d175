"""Separate the bundled demo song and compare the stems with the true ones.

    python scripts/demo.py --output out/demo [--model NAME]

Prints where the stems are, how long it took, and each stem's uSDR in dB (over the whole song, see
separator/evaluation/ratios.py) beside that of the unseparated mixture.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch

from separator import Separator
from separator.errors import SeparatorError
from separator.evaluation.ratios import usdr
from separator.resources import DEFAULT_MODEL, data_folder


def read(path: Path) -> torch.Tensor:
    """Return a file as one stem, `(1, channels, time)`."""
    return torch.from_numpy(soundfile.read(path, always_2d=True)[0].T)[None]


def run(output: Path, model: str) -> None:
    demo = data_folder("models") / "demo"
    song = demo / "mixture.flac"
    print(f"Loading {model} ...")
    separator = Separator(model)
    result = separator.separate_file(
        song, output, bit_depth=32, template="{stem}.{ext}", overwrite=True
    )
    speed = result.duration / result.seconds
    print(
        f"Separated {result.duration:.1f} s of music in {result.seconds:.1f} s "
        f"({speed:.1f} times as fast as it plays) on {separator.device.type}, "
        f"{str(separator.precision).removeprefix('torch.')}.\n"
    )
    mixture = read(song)
    print(f"  {'stem':<8} {'uSDR':>8} {'mixture':>9}   file")
    scores = []
    for stem, path in result.outputs.items():
        target = read(demo / f"{stem}.ogg")
        scores.append((usdr(target, read(path)).item(), usdr(target, mixture).item()))
        print(f"  {stem:<8} {scores[-1][0]:5.2f} dB {scores[-1][1]:6.2f} dB   {path}")
    means = np.mean(scores, axis=0)
    print(f"  {'mean':<8} {means[0]:5.2f} dB {means[1]:6.2f} dB")
    print(f"\n'{separator.card.name}': {separator.card.training_data}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/demo"))
    parser.add_argument("--model", default=DEFAULT_MODEL)
    arguments = parser.parse_args()
    try:
        run(arguments.output, arguments.model)
    except SeparatorError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
