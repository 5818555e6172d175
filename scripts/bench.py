"""Measure the program: speed, memory, exactness, start-up; beside the peers that are installed.

    python scripts/bench.py [SECTION ...] [--peers FOLDER] [--hours 2]

Sections: start, command, null, precision, networks, memory; all of them unless named. Peers
(demucs, pymss) are looked for in `--peers`, the `bin` folder of an environment that holds them, or
on the PATH; missing ones are skipped with a word. Each time is a median of runs that take turns,
each memory the peak resident set of a whole process.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from separator.resources import data_folder

SEPARATOR = [sys.executable, "-m", "separator"]
RATE = 44100

# Writes HTDemucs with random weights where demucs' own command finds it.
RANDOM_HTDEMUCS = """
import sys, torch
from demucs.htdemucs import HTDemucs
torch.manual_seed(0)
model = HTDemucs(["drums", "bass", "other", "vocals"])
args, kwargs = model._init_args_kwargs
package = {"klass": HTDemucs, "args": args, "kwargs": kwargs, "state": model.state_dict()}
torch.save(package, sys.argv[1] + "/random.th")
"""


def run(command: Sequence[str]) -> tuple[float, float]:
    """Run a command; return its wall-clock seconds and its peak memory in MB."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"TERM": "dumb"},
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors.decode()[-2000:]}")
    return seconds, _megabytes(usage)


def _megabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def peer(name: str, folder: Path | None) -> str | None:
    """Return the path of a peer's program, or say that it is skipped."""
    found = shutil.which(name, path=str(folder) if folder else None)
    if found is None:
        print(f"  {name}: not installed, skipped (--peers FOLDER says where it is)")
    return found


def song(path: Path, seconds: float, suffix_kwargs: dict[str, object] | None = None) -> Path:
    """Write the demo song again and again until the file is that long."""
    demo, _ = soundfile.read(data_folder("models") / "demo" / "mixture.flac", dtype="float32")
    left = round(seconds * RATE)
    with soundfile.SoundFile(path, "w", RATE, 2, **(suffix_kwargs or {})) as file:
        while left > 0:
            file.write(demo[:left])
            left -= len(demo)
    return path


def bench_start(work: Path, peers: Path | None, options: argparse.Namespace) -> None:
    """How long `--help` takes to answer."""
    commands = {"separator": [*SEPARATOR, "--help"]}
    for name in ("demucs", "pymss"):
        if program := peer(name, peers):
            commands[name] = [program, "--help"]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(5):
        for name, command in commands.items():
            times[name].append(run(command)[0])
    for name, values in times.items():
        print(f"  {name + ' --help':<20} {statistics.median(values):6.2f} s")


def bench_command(work: Path, peers: Path | None, options: argparse.Namespace) -> None:
    """The whole command on a 4-minute mp3, and its share outside the network."""
    import json

    mp3 = song(work / "song.mp3", 240, {"format": "MP3"})
    report = work / "report.json"
    command = [*SEPARATOR, "separate", str(mp3), "-o", str(work / "out"), "--overwrite"]
    command += ["--model", "pocket"]
    runs = []
    for _ in range(3):
        seconds, memory = run([*command, "--report", str(report)])
        entry = json.loads(report.read_text())["files"][0]
        runs.append((seconds, memory, entry["seconds"], entry["network_seconds"]))
    seconds, memory, whole, network = (
        statistics.median(column) for column in zip(*runs, strict=True)
    )
    print(f"  separator (pocket)   {seconds:6.1f} s for 240 s of music, {memory:6.0f} MB peak")
    print(f"    network            {network / 240:6.3f} s per second of music")
    print(f"    outside of it      {100 * (whole - network) / whole:6.1f} % of the file's time")
    if program := peer("demucs", peers):
        subprocess.run(
            [str(Path(program).parent / "python"), "-c", RANDOM_HTDEMUCS, str(work)], check=True
        )
        demucs = [program, "-n", "random", "--repo", str(work), "-o"]
        seconds, memory = run([*demucs, str(work / "demucs"), str(mp3)])
        print(f"  demucs (HTDemucs)    {seconds:6.1f} s for 240 s of music, {memory:6.0f} MB peak")


def bench_memory(work: Path, peers: Path | None, options: argparse.Namespace) -> None:
    """The peak memory on a long file and on a short one."""
    peaks = []
    for seconds in (600, options.hours * 3600):
        wav = song(work / "long.wav", seconds, {"subtype": "PCM_16"})
        command = [*SEPARATOR, "separate", str(wav), "-o", str(work / "out"), "--overwrite"]
        command += ["--model", "pocket"]
        took, memory = run([*command, "--format", "wav"])
        peaks.append(memory)
        print(f"  {seconds / 60:6.0f} minutes   {memory:7.0f} MB peak   {took:7.1f} s")
        shutil.rmtree(work / "out")
    print(f"  difference       {100 * abs(peaks[1] / peaks[0] - 1):7.1f} %")


def bench_null(work: Path, peers: Path | None, options: argparse.Namespace) -> None:
    """What is left of the mixture when written stems and residual are taken away."""
    mixture = data_folder("models") / "demo" / "mixture.flac"
    truth, _ = soundfile.read(mixture, dtype="float64")
    for depth, unit in ((32, "full scale"), (24, "LSB"), (16, "LSB")):
        out = work / f"null{depth}"
        run([*SEPARATOR, "separate", str(mixture), "-o", str(out), "--residual", "rest",
             "--stems", "drums,vocals", "--bit-depth", str(depth)])  # fmt: skip
        total = sum(soundfile.read(path, dtype="float64")[0] for path in out.rglob("*.wav"))
        scale = 1.0 if depth == 32 else 2.0 ** (depth - 1)
        print(f"  {depth:2d} bits   {np.abs(total - truth).max() * scale:9.2g} {unit}")


def bench_precision(work: Path, peers: Path | None, options: argparse.Namespace) -> None:
    """What bfloat16 costs the default model: the uSDR of the demo song's stems."""
    demo = data_folder("models") / "demo"
    scores = {}
    for precision in ("float32", "bfloat16"):
        out = work / precision
        command = [*SEPARATOR, "separate", str(demo / "mixture.flac"), "-o", str(out)]
        run([*command, "--precision", precision, "--bit-depth", "32"])
        scores[precision] = {path.stem: sdr(path, demo) for path in sorted(out.rglob("*.wav"))}
    for stem, exact in scores["float32"].items():
        change = scores["bfloat16"][stem] - exact
        print(f"  {stem:<8} float32 {exact:6.2f} dB   bfloat16 {change:+7.3f} dB")


def sdr(estimate: Path, truth: Path) -> float:
    """Return the uSDR in dB against the stem of the same name."""
    import torch

    from separator.evaluation.ratios import usdr

    paths = (truth / f"{estimate.stem}.ogg", estimate)
    stems = (soundfile.read(path, always_2d=True)[0].T for path in paths)
    return usdr(*(torch.from_numpy(stem)[None] for stem in stems)).item()


def bench_networks(work: Path, peers: Path | None, options: argparse.Namespace) -> None:
    """The networks against their reference implementations."""
    command = [sys.executable, str(Path(__file__).with_name("bench_networks.py"))]
    if peers:
        command += ["--peer-python", str(peers / "python")]
    subprocess.run(command, check=True)


SECTIONS: dict[str, Callable[[Path, Path | None, argparse.Namespace], None]] = {
    "start": bench_start,
    "command": bench_command,
    "null": bench_null,
    "precision": bench_precision,
    "networks": bench_networks,
    "memory": bench_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", default=list(SECTIONS))
    parser.add_argument("--peers", type=Path, default=os.environ.get("PEERS"))
    parser.add_argument("--hours", type=float, default=2.0, help="length of the long file")
    options = parser.parse_args()
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        parser.error(f"unknown section {unknown[0]}; there are: {', '.join(SECTIONS)}")
    peers = Path(options.peers) if options.peers else None
    for name in options.sections:
        print(f"\n{name}: {SECTIONS[name].__doc__}")
        with tempfile.TemporaryDirectory() as work:
            SECTIONS[name](Path(work), peers, options)


if __name__ == "__main__":
    main()
