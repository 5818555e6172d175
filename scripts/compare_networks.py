"""Compare networks by what they learn in the same time: SDR, operations, speed, size.

    python scripts/make_synthetic_musdb.py data/synthetic --train 160 --test 20
    python scripts/compare_networks.py data/synthetic --minutes 20

Each network of a size that suits two processor cores is trained from scratch on FOLDER/train for
the same time (how many steps that makes is measured first), by the same recipe but for what its
authors would not do without, and is then measured on whole songs of FOLDER/test. On the CPU, time
is the processor's: what other programs do meanwhile changes nothing but the wait. A Markdown table
goes to the standard output, with operations and time for a second of music, and minutes that
include the measuring; messages go to the standard error. What is finished is kept in --output and
not done again, so an interrupted comparison goes on. With the default of 20 minutes the six
networks take about two and a half hours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from separator.training.callbacks import LAST, Report
from separator.training.dryrun import analyse, measure_speed
from separator.training.export import trained_network
from separator.training.recipe import Recipe, resolve
from separator.training.run import read_checkpoint, saved_recipe, train
from separator.words import rounded

STEMS = ["drums", "bass", "other", "vocals"]
BANDS = [4] * 12 + [8] * 8 + [16] * 8 + [48] * 7 + [128] * 6 + [705]  # of 2,049 bins
ROFORMER = {
    "dim": 96,
    "depth": 4,
    "heads": 4,
    "dim_head": 24,
    "ff_expansion": 2,
    "mask_estimator_depth": 1,
    "mlp_expansion_factor": 1,
}
TRANSFORM = {"n_fft": 4096, "hop_length": 2048}
SMALL_MASKS = {"initial_scale": {"mask_estimators": 0.1}}  # see configs/pocket.yaml
MUON = {"optimizer": {"name": "muon", "matrix_rate": 4e-3, "rate": 1e-3, "betas": [0.9, 0.98]}}

#: Name of a row -> network, its parameters, and what its recipe has of its own.
CANDIDATES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "BS-RoFormer": (
        "bs_roformer",
        ROFORMER | TRANSFORM | {"bands": BANDS},
        SMALL_MASKS | MUON,
    ),
    "Mel-RoFormer": (
        "mel_band_roformer",
        ROFORMER | TRANSFORM | {"bands": 42},
        SMALL_MASKS | MUON,
    ),
    "SCNet": (
        "scnet",
        TRANSFORM | {"dims": [4, 16, 32, 64], "dual_path_layers": 4},
        {},
    ),
    "BSRNN": (
        "bsrnn",
        TRANSFORM
        | {"bands": "musical", "band_count": 32, "modules": 3}
        | {"dim": 64, "rnn_hidden": 64, "mask_hidden": 64},
        {},
    ),
    "TFC-TDF v3": (
        "tfc_tdf",
        TRANSFORM | {"bins": 2048, "subbands": 4, "scales": 3, "width": 16, "growth": 16},
        {},
    ),
    "HTDemucs": (
        "htdemucs",
        {"hidden_channels": 16, "transformer_layers": 3, "transformer_heads": 4, "segment": 6.0},
        {"optimizer": {"name": "adam", "rate": 3e-4}},
    ),
}


def recipe(name: str, steps: int, options: argparse.Namespace) -> Recipe:
    """Return the recipe of a candidate."""
    network, parameters, own = CANDIDATES[name]
    common = {
        "description": f"{name}, compared",
        "network": network,
        "parameters": parameters,
        "stems": STEMS,
        "data": {
            "segment": options.segment,
            "batch": options.batch,
            "folders": [{"path": str(options.folder)}],
            "cache": str(options.output / "cache"),
        },
        "augmentation": {"swap": {}, "polarity": {}, "gain": {"low": -6, "high": 6}},
        "loss": {"negative_sdr": {"floor": 0.03}},
        "optimizer": {"name": "adamw", "rate": 1e-3},
        "schedule": {"name": "cosine", "warmup": max(1, min(90, steps // 10))},
        "steps": steps,
        "clip": 1.0,
        "ema": 0.99 if steps > 300 else 0.9,
        "validation": {
            "every": steps,
            "folder": {"path": str(options.folder), "split": "test"},
            "tracks": options.tracks,
            "segment": 6.0,
            "excerpt": 0.0,
        },
        "save": {"every": 100, "best": 0},
        "log": {"every": max(1, min(50, steps // 5)), "tensorboard": False},
        "hardware": {"accelerator": options.accelerator},
    }
    return resolve(common | own, name)


def compare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train and measure a candidate, unless that has been done."""
    folder = options.output / CANDIDATES[name][0]
    done = folder / "result.json"
    if done.exists():
        result: dict[str, Any] = json.loads(done.read_text())
        return result
    probe = recipe(name, 1, options)
    costs = analyse(probe)
    resume = (folder / LAST).exists()
    if resume:
        plan = saved_recipe(folder / LAST)
    else:
        speed = steps_per_second(probe, options)
        plan = recipe(name, max(1, round(60 * options.minutes * speed)), options)
    print(f"{name}: {rounded(costs.macs)} MACs per second, {plan.steps} steps", file=sys.stderr)

    def tell(report: Report) -> None:
        metrics = ", ".join(f"{key} {value:.3f}" for key, value in report.metrics.items())
        print(f"  {name}: step {report.step}/{report.steps}: {metrics}", file=sys.stderr)

    began = worked(options)
    trained = train(plan, folder, resume=resume, report=tell)
    result = {
        "sdr": trained.sdr,
        "macs": costs.macs,
        "parameters": costs.parameters,
        "steps": trained.step,
        "minutes": (worked(options) - began) / 60,
        "seconds": seconds_per_second(folder, options.threads),
    }
    done.write_text(json.dumps(result))
    return result


def worked(options: argparse.Namespace) -> float:
    """Return the seconds that have been worked: by every thread of the CPU, or by the clock."""
    if options.accelerator == "cpu":
        return time.process_time() / options.threads
    return time.perf_counter()


def steps_per_second(probe: Recipe, options: argparse.Namespace) -> float:
    """Return how many steps are made while a second is worked."""
    began, waited = worked(options), time.perf_counter()
    speed = measure_speed(probe, seconds=options.probe)
    return speed * (time.perf_counter() - waited) / (worked(options) - began)


def seconds_per_second(folder: Path, threads: int, length: float = 6.0, rounds: int = 3) -> float:
    """Return how long a trained network takes for a second of music on the processor."""
    plan, network = trained_network(read_checkpoint(folder / LAST), folder.name)
    mixture = 0.1 * torch.randn(1, plan.channels, round(length * plan.sample_rate))
    times = []
    with torch.inference_mode():
        for _ in range(rounds + 1):
            began = time.process_time()
            network(mixture)
            times.append((time.process_time() - began) / threads)
    return statistics.median(times[1:]) / length


def row(name: str, result: dict[str, Any]) -> str:
    """Format a row of the table."""
    cells = (
        name,
        f"{result['sdr']:.2f}",
        f"{result['sdr'] / (result['macs'] / 1e9):.1f}",
        f"{result['macs'] / 1e9:.2f}",
        f"{result['seconds']:.3f}",
        f"{result['parameters'] / 1e6:.1f}",
        str(result["steps"]),
        f"{result['minutes']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="laid out like MUSDB18-HQ: train, test")
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, each network")
    parser.add_argument("--networks", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--output", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--segment", type=float, default=3.0, help="seconds, in training")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tracks", type=int, default=8, help="of the test split")
    parser.add_argument("--probe", type=float, default=20.0, help="seconds to measure the speed")
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    print("| Network | SDR in dB | dB per GMAC/s | GMAC/s | s/s | M parameters | steps | minutes |")
    print(f"|{8 * ' --- |'}")
    for name in options.networks:
        print(row(name, compare(name, options)), flush=True)


if __name__ == "__main__":
    main()
