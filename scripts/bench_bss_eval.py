"""Time BSSEval against museval: alternating runs, each in a fresh process, medians and peak memory.

python scripts/bench_bss_eval.py --seconds 30 --repeats 5
python scripts/bench_bss_eval.py --seconds 240 --repeats 3
"""

import argparse
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from separator.evaluation.bss_eval import bss_eval

SAMPLE_RATE = 44100


def songs(seconds: float, sources: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 references and estimates: low-passed noise, its leakage and some noise.

    They are made one by one, lest the peak memory be that of making them.
    """
    rng = np.random.default_rng(0)
    shape = (sources, channels, int(seconds * SAMPLE_RATE))
    references = rng.standard_normal(shape, dtype=np.float32)
    for source, reference in enumerate(references):
        for _ in range(source):
            reference[:, 1:] += reference[:, :-1].copy()
            reference[:, 0] = 0
        reference *= 0.1 / reference.std()
    leakage = 0.1 * references.sum(axis=0)
    estimates = rng.standard_normal(shape, dtype=np.float32)
    for estimate, reference in zip(estimates, references, strict=True):
        estimate *= 0.01
        estimate += 0.9 * reference + leakage
    return references, estimates


def ours(references: np.ndarray, estimates: np.ndarray, **options: Any) -> None:
    bss_eval(torch.from_numpy(references), torch.from_numpy(estimates), **options)


def museval(references: np.ndarray, estimates: np.ndarray, **options: Any) -> None:
    from museval.metrics import bss_eval as official

    options["filters_len"] = options.pop("filter_length", 512)
    options = {"window": SAMPLE_RATE, "hop": SAMPLE_RATE, **options}
    official(references.transpose(0, 2, 1), estimates.transpose(0, 2, 1), **options)


ENGINES = {"ours": ours, "museval": museval}


def measure(name: str, seconds: float, sources: int, channels: int, framewise: bool) -> list[float]:
    """Return the seconds of wall time, of CPU time and the peak and the initial MiB of memory."""
    engine = ENGINES[name]
    engine(*songs(2, sources, channels))  # imports and plans: a run measures many songs
    references, estimates = songs(seconds, sources, channels)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu = time.perf_counter(), time.process_time()
    engine(references, estimates, framewise_filters=framewise)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [wall, cpu, peak, before]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--framewise-filters", action="store_true")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    args = parser.parse_args()

    job = (args.seconds, args.sources, args.channels, args.framewise_filters)
    runs: dict[str, list[list[float]]] = {name: [] for name in args.engines}
    for repeat in range(args.repeats):
        for name, results in runs.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                results.append(pool.submit(measure, name, *job).result())
            wall, cpu, peak, before = results[-1]
            print(
                f"run {repeat + 1}  {name:8s} {wall:8.2f} s wall  {cpu:8.2f} s CPU  "
                f"peak {peak:6.0f} MiB, {before:.0f} before",
                flush=True,
            )
    medians = {
        n: [statistics.median(column) for column in zip(*r, strict=True)] for n, r in runs.items()
    }
    for name, (wall, cpu, peak, _) in medians.items():
        print(f"median {name:8s} {wall:8.2f} s wall  {cpu:8.2f} s CPU  peak {peak:6.0f} MiB")
    if len(medians) == 2:
        faster = [a / b for a, b in zip(medians["museval"], medians["ours"], strict=True)]
        print(f"museval / ours: {faster[0]:.1f} in wall time, {faster[1]:.1f} in CPU time")


if __name__ == "__main__":
    main()
