"""Time the networks beside their reference implementations: same weights, same mixture.

    python scripts/bench_networks.py [NETWORK ...] [--peer-python PROGRAM] [--rounds 5]
                                     [--processor-time]

The references (see make_reference_outputs.py) run under `--peer-python`, an interpreter of an
environment that has them; those that it lacks are skipped with a word. Every implementation is a
process of its own; they take turns, with an untimed run first in each turn, and the times are
medians. The ratios are how many times faster ours is, in float32 and with the core in bfloat16.

The seconds are those of the clock, which is what counts, and needs an otherwise idle machine.
`--processor-time` adds up the time of all threads instead, which other work disturbs far less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import warnings
from typing import Any

from turns import Worker

FOUR = ["drums", "bass", "other", "vocals"]
ROFORMER = {"stems": ["vocals"], "dim": 384, "depth": 6, "heads": 8, "dim_head": 64}
BS_BANDS = [2] * 24 + [4] * 12 + [12] * 8 + [24] * 8 + [48] * 8 + [128, 129]
VR_BANDS = [
    {"n_fft": 640, "hop_length": 80, "crop": [0, 85], "lowpass": [24, 52]},
    {"n_fft": 320, "hop_length": 80, "crop": [4, 87], "highpass": [12, 26], "lowpass": [30, 61]},
    {
        "n_fft": 512,
        "hop_length": 160,
        "crop": [17, 216],
        "highpass": [24, 49],
        "lowpass": [138, 209],
    },
    {"n_fft": 960, "hop_length": 480, "crop": [78, 383], "highpass": [86, 131]},
]
SCNET = {"n_fft": 4096, "hop_length": 1024, "conv_depths": [3, 2, 1], "dual_path_layers": 6}
SCNET_BANDS = {"band_ratios": [0.175, 0.392, 0.433], "band_strides": [1, 4, 16]}

#: Parameters of the usual public model of each family, and how much music it is timed on.
NETWORKS: dict[str, tuple[dict[str, Any], float]] = {
    "bs_roformer": (
        ROFORMER | {"n_fft": 2048, "hop_length": 441, "bands": BS_BANDS},
        4.0,
    ),
    "mel_band_roformer": (ROFORMER | {"n_fft": 2048, "hop_length": 441, "bands": 60}, 4.0),
    "scnet": (
        SCNET | SCNET_BANDS | {"stems": FOUR, "dims": [4, 32, 64, 128], "band_kernels": [3, 4, 16]},
        6.0,
    ),
    "tfc_tdf": (
        {
            "stems": ["vocals", "other"],
            "n_fft": 8192,
            "hop_length": 1024,
            "bins": 4096,
            "subbands": 4,
            "scales": 5,
            "width": 128,
            "growth": 128,
        },
        63 * 1024 / 44_100,  # 64 frames
    ),
    "open_unmix": (
        {
            "stems": [*FOUR, "residual"],
            "n_fft": 4096,
            "hop_length": 1024,
            "hidden_size": 512,
            "max_bin": 1487,
            "residual": True,
            "wiener_iterations": 1,
            "wiener_frames": 300,
        },
        10.0,
    ),
    "x_umx": (
        {
            "stems": FOUR,
            "n_fft": 4096,
            "hop_length": 1024,
            "hidden_size": 512,
            "max_bin": 1487,
            "wiener_iterations": 0,
        },
        10.0,
    ),
    "bsrnn": (
        {
            "stems": ["speech", "music", "effects"],
            "bands": "musical",
            "band_count": 64,
            "channels": 1,
            "n_fft": 2048,
            "hop_length": 512,
            "modules": 8,
            "dim": 128,
            "rnn_hidden": 256,
            "mask_hidden": 512,
        },
        4.0,
    ),
    "vr_aspp": (
        {
            "stems": ["instrumental", "vocals"],
            "width": 64,
            "front_end": {"bands": VR_BANDS, "rolloff": [668, 672]},
        },
        254 * 480 / 44_100,  # one window
    ),
    "vr_lstm": (
        {
            "stems": ["dry", "echo"],
            "width": 48,
            "lstm_width": 128,
            "front_end": {"bands": VR_BANDS, "lowpass": [667, 671]},
        },
        382 * 480 / 44_100,  # one window
    ),
    "demucs": ({"stems": FOUR}, 6.0),
    "hdemucs": ({"stems": FOUR}, 8.0),
    "htdemucs": (
        {"stems": FOUR, "bottom_channels": 512, "dconv_mode": 3, "dconv_comp": 8, "segment": 7.8},
        7.8,
    ),
    "conv_tasnet": (
        {
            "stems": ["one", "two"],
            "channels": 1,
            "features": 512,
            "dim": 128,
            "hidden": 512,
            "layers": 8,
            "stacks": 3,
        },
        2.0,
    ),
}


def start(python: str, kind: str, name: str, options: argparse.Namespace) -> Worker:
    """Start a process with one implementation, which separates once when it is its turn."""
    command = [name, "--worker", kind, "--threads", options.threads, "--length", options.length]
    if not options.processor_time:
        return Worker.start(python, __file__, command)
    passive = {"OMP_WAIT_POLICY": "passive"}  # threads that wait take no time
    return Worker.start(python, __file__, [*command, "--processor-time"], **passive)


def work(kind: str, name: str, options: argparse.Namespace) -> None:
    """Be a worker: for each line of input print the seconds and some values of the estimates."""
    import reference
    import torch
    from make_reference_outputs import BUILDERS

    from separator.heap import keep_freed_memory
    from separator.networks import build_network

    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.processor_time else time.perf_counter
    parameters, seconds = NETWORKS[name]
    if kind == "reference":
        network = BUILDERS[name](parameters).eval()
    else:
        keep_freed_memory()  # as the program does
        network = build_network(name, **parameters).eval()
    network.load_state_dict(reference.weights(network.state_dict()))
    if kind == "bfloat16":
        network.get_submodule("core").to(torch.bfloat16)
    samples = round(options.length * seconds * 44_100)
    mixture = reference.mixture(samples, parameters.get("channels", 2))
    for _ in sys.stdin:
        with torch.inference_mode():
            network(mixture)  # while the others ran, the system may have taken memory away
            began = clock()
            estimates = network(mixture)
        took = clock() - began
        print(took, *reference.some(estimates)[:1000:10].tolist(), flush=True)


def compare(name: str, options: argparse.Namespace) -> None:
    """Print one line of the table."""
    programs = {"float32": sys.executable, "bfloat16": sys.executable}
    if options.peer_python:
        programs["reference"] = options.peer_python
    workers = {kind: start(p, kind, name, options) for kind, p in programs.items()}
    times: dict[str, list[float]] = {kind: [] for kind in workers}
    values: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for kind, worker in list(workers.items()):
            line = worker.ask()
            if line is None:
                print(f"  {name}: no {kind} ({workers.pop(kind).end()})")
                continue
            took, *values[kind] = map(float, line.split())
            times[kind].append(took)
    for worker in workers.values():
        worker.end()
    medians = {kind: statistics.median(taken) for kind, taken in times.items() if taken}
    print(row(name, medians, values), flush=True)


def row(name: str, medians: dict[str, float], values: dict[str, list[float]]) -> str:
    """Format the medians of one network, and how far our estimates are from the reference's."""
    cells = [f"{medians[kind]:8.2f} s" if kind in medians else " " * 10 for kind in KINDS]
    if "reference" in medians:
        for kind in KINDS[1:]:
            cells.append(f"{medians['reference'] / medians[kind]:6.2f}x")
        theirs, ours = values["reference"], values["float32"]
        distance = sum((a - b) ** 2 for a, b in zip(theirs, ours, strict=True)) ** 0.5
        cells.append(f"{distance / sum(a * a for a in theirs) ** 0.5:8.0e}")
    return f"  {name:<18}" + " ".join(cells)


KINDS = ("reference", "float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=list(NETWORKS))
    parser.add_argument("--peer-python", help="an interpreter that has the references")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--length", type=float, default=1.0, help="of the music, relative to usual")
    parser.add_argument("--processor-time", action="store_true", help="for a machine at work")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [name for name in options.networks if name not in NETWORKS]:
        parser.error(f"unknown network {unknown[0]}; there are: {', '.join(NETWORKS)}")
    if options.worker:
        work(options.worker, options.networks[0], options)
        return
    print(f"  {'':<18}{'reference':>10} {'float32':>10} {'bfloat16':>10}   ratios          error")
    for name in options.networks:
        compare(name, options)


if __name__ == "__main__":
    main()
