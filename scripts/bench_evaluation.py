"""Time a whole evaluation: what separating costs, what measuring costs, and the peak memory.

    python scripts/bench_evaluation.py --tracks 50 --seconds 240

Writes songs in the layout of MUSDB18-HQ (44.1 kHz, stereo, 16 bit; noise and tones with a beat,
whose sound doesn't matter here), evaluates a model on them, and checks that the metrics cost less
than the separation. The disk must hold 0.88 MB for each second of a song, 10.6 GB for all. Songs
and results go to a temporary folder, or stay in --folder: run it again there to go on.

After each song it says how long the rest will take. Where that is too long, fewer --tracks of the
same length give the same ratio: both costs grow with the music, song by song.
"""

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from separator.datasets import scan_dataset
from separator.evaluation.measure import Evaluation, TrackOutcome, evaluate
from separator.evaluation.methods import ModelMethod
from separator.evaluation.results import find_results
from separator.evaluation.scoring import choose_metrics
from separator.zoo.search import find_card

SAMPLE_RATE = 44100
STEMS = {"drums": (0.0, 4.0), "bass": (55.0, 2.0), "other": (440.0, 1.0), "vocals": (660.0, 0.5)}


def render(seed: int, seconds: float) -> dict[str, np.ndarray]:
    """Return a tone with some noise for each stem (drums: noise alone), in a beat, as 16 bit."""
    generator = np.random.default_rng(seed)
    seconds_at = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    stems = {}
    for stem, (hertz, beats) in STEMS.items():
        tone = np.sin(2 * np.pi * hertz * 2 ** (generator.integers(12) / 12) * seconds_at)
        noise = generator.standard_normal((len(seconds_at), 2), dtype=np.float32)
        envelope = 1 - (beats * seconds_at) % 1
        audio = (0.1 * envelope)[:, None] * (tone[:, None] + (0.2 if hertz else 1.0) * noise)
        stems[stem] = np.round(4096 * audio.clip(-1, 1)).astype(np.int16)
    return stems


def write_songs(folder: Path, tracks: int, seconds: float) -> None:
    for seed in range(tracks):
        song = folder / "test" / f"song {seed:03d}"
        if (song / "mixture.wav").exists():
            continue
        song.mkdir(parents=True, exist_ok=True)
        stems = render(seed, seconds)
        stems["mixture"] = sum(stems.values(), np.zeros_like(stems["drums"]))  # written last
        for name, audio in stems.items():
            soundfile.write(song / f"{name}.wav", audio, SAMPLE_RATE, "PCM_16")


def check_disk(folder: Path, tracks: int, seconds: float) -> None:
    """Refuse to fill the disk: each second is five files of two channels of two bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = tracks - len(list(folder.glob("songs/test/*/mixture.wav")))
    needed, free = missing * seconds * SAMPLE_RATE * 20 / 1e9, shutil.disk_usage(folder).free / 1e9
    print(f"The songs need {needed:.1f} GB in '{folder}', where {free:.1f} GB are free.")
    if needed > free:
        raise SystemExit("Choose another --folder, or fewer --tracks.")


class Progress:
    """Say what became of each track, and how long the rest will take."""

    def __init__(self, tracks: int):
        self.tracks, self.ended, self.began = tracks, 0, time.perf_counter()

    def __call__(self, track: str, outcomes: Sequence[TrackOutcome]) -> None:
        """Print a line; as `on_track` of `evaluate`."""
        self.ended += 1
        states = ", ".join(outcome.error or outcome.status for outcome in outcomes)
        left = (time.perf_counter() - self.began) / self.ended * (self.tracks - self.ended)
        print(f"{track}: {states}; {left / 60:.0f} minutes left", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracks", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--metric", action="append", default=[], help="as for the command")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, help="of each job")
    parser.add_argument("--folder", type=Path, help="for songs and results; kept")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        check_disk(folder, options.tracks, options.seconds)
        write_songs(folder / "songs", options.tracks, options.seconds)
        index = folder / "index.json"
        dataset = scan_dataset(folder / "songs", "musdb18hq", index=index)
        model = ModelMethod(find_card(options.model))
        metrics = choose_metrics(options.metric)
        evaluation = Evaluation((model,), metrics, folder / "results", threads=options.threads)
        began = time.perf_counter()
        evaluate(dataset.tracks, evaluation, jobs=options.jobs, on_track=Progress(len(dataset)))
        wall = time.perf_counter() - began
        runs = [result.run for result in find_results(folder / "results")]

    music = sum(run.duration for run in runs)
    separation = sum(run.seconds or 0.0 for run in runs)
    measuring = sum(run.metric_seconds for run in runs)
    peak = max(
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(f"{len(runs)} tracks, {music:.0f} s of music, {', '.join(metrics)}")
    print(f"separation {separation:9.1f} s   {separation / music:.4f} s per second of music")
    print(f"metrics    {measuring:9.1f} s   {measuring / music:.4f} s per second of music")
    print(f"all        {wall:9.1f} s   {options.jobs} jobs; peak {peak:.0f} MiB in a process")
    if len(runs) < options.tracks or measuring >= separation:
        raise SystemExit("Tracks failed, or the metrics cost more than the separation.")
    print(f"The metrics cost {measuring / separation:.2f} of what the separation costs.")


if __name__ == "__main__":
    main()
