"""Write a folder of synthetic songs shaped like MUSDB18-HQ.

    python scripts/make_synthetic_musdb.py data/synthetic --train 160 --test 20

gives data/synthetic/{train,test}/SONG/{mixture,drums,bass,other,vocals}.wav, 16 bit, 44.1 kHz.
A seed decides every sample (as long as the same soundfonts and voices are installed), songs are
rendered in parallel, and a second run makes only what is missing. `--timbres heldout` draws from
instruments and voices that `--timbres train` never uses. `--plain` does without the programs
fluidsynth and espeak-ng; `--style "hip hop"` keeps to one style.
"""

import argparse
import multiprocessing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from separator.files import whole_file
from separator.synthesis import SAMPLE_RATE, Palette, render_song
from separator.synthesis.oscillators import Audio
from separator.synthesis.styles import STYLES

TEST_SEED = 1_000_000  # test songs start here, so that no seed is in both sets


def write_song(
    folder: Path, seed: int, *, duration: float, palette: Palette, style: str | None = None
) -> None:
    """Render one song into its folder unless it is there."""
    if (folder / "mixture.wav").exists():
        return
    write_stems(folder, render_song(seed, duration, palette, style))


def write_stems(folder: Path, stems: dict[str, Audio]) -> None:
    """Write stems and their sum, 16 bit; `mixture.wav` comes last and marks a song as whole."""
    folder.mkdir(parents=True, exist_ok=True)
    pcm = {stem: np.round(audio * 32767).astype(np.int32) for stem, audio in stems.items()}
    pcm["mixture"] = np.clip(np.sum(list(pcm.values()), axis=0), -32768, 32767)
    for name, audio in pcm.items():
        with whole_file(folder / f"{name}.wav") as part:
            soundfile.write(part, audio.T.astype(np.int16), SAMPLE_RATE, "PCM_16", format="WAV")


def _write(job: tuple[Path, int], **options: Any) -> str:
    write_song(*job, **options)
    return job[0].name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=160, help="number of training songs")
    parser.add_argument("--test", type=int, default=20, help="number of test songs")
    parser.add_argument("--duration", type=float, default=45.0, help="seconds of each song")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first training song")
    parser.add_argument("--timbres", choices=("train", "heldout", "any"), default="train")
    parser.add_argument("--style", choices=sorted(STYLES), help="all unless given")
    parser.add_argument("--plain", action="store_true", help="use no soundfonts and no speech")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    options = parser.parse_args()

    palette = Palette(options.timbres) if options.plain else Palette.installed(options.timbres)
    work = partial(_write, duration=options.duration, palette=palette, style=options.style)
    first = {"test": options.seed + TEST_SEED, "train": options.seed}
    jobs = [
        (options.folder / part / f"{first[part] + i:07d}", first[part] + i)
        for part, count in (("test", options.test), ("train", options.train))
        for i in range(count)
    ]
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for done, name in enumerate(pool.imap_unordered(work, jobs), 1):
            print(f"{done}/{len(jobs)} {name}", flush=True)


if __name__ == "__main__":
    main()
