"""Pack samples of a data set's stems into a bank that feeds a GPU.

    python scripts/make_synthetic_musdb.py data/synthetic --train 160
    python scripts/make_bank.py data/synthetic data/bank.safetensors

Any folder that `separator.datasets` knows will do. A recipe then says

    data: {segment: 6.0, batch: 16, bank: {path: data/bank.safetensors}}
"""

import argparse
from pathlib import Path

from separator.training.data.bank import build_bank
from separator.training.data.build import DataOptions, Folder, folder_library
from separator.training.data.sources import Plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the data set")
    parser.add_argument("bank", type=Path, help="the file to write, .safetensors")
    parser.add_argument("--stems", nargs="+", default=["drums", "bass", "other", "vocals"])
    parser.add_argument("--split", default="train")
    parser.add_argument("--megabytes", type=float, default=64.0, help="most that it holds, in MiB")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a clip")
    parser.add_argument("--sample-rate", type=int, default=44100, help="Hz")
    parser.add_argument("--mono", action="store_true", help="half the width, twice the clips")
    parser.add_argument("--cache", help="where decoded songs are kept")
    parser.add_argument("--seed", type=int, default=0, help="decides which clips are chosen")
    options = parser.parse_args()

    plan = Plan(
        stems=tuple(options.stems),
        sample_rate=options.sample_rate,
        channels=1 if options.mono else 2,
        samples=1,
        batch=1,
    )
    folder = Folder(path=str(options.folder), split=options.split)
    library = folder_library(DataOptions(folders=(folder,), cache=options.cache), plan)
    bank = build_bank(
        library,
        plan.stems,
        sample_rate=plan.sample_rate,
        seconds=options.seconds,
        megabytes=options.megabytes,
        seed=options.seed,
    )
    options.bank.parent.mkdir(parents=True, exist_ok=True)
    bank.save(options.bank)
    clips = ", ".join(f"{count} of {stem}" for stem, count in bank.counts.items())
    print(f"{options.bank}: {options.bank.stat().st_size / 2**20:.1f} MiB, clips: {clips}")


if __name__ == "__main__":
    main()
