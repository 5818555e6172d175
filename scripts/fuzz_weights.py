"""Damage and falsify the files of models, and see that each ends in a model or in one line.

    python scripts/fuzz_weights.py --seconds 60 --seed 1

Small files of every kind that `separator models add` reads are made, then changed: bytes flipped,
cut out, doubled; values of pickles, of YAML and of hyper-parameters replaced by hostile ones. Each
case is read by a process of its own, whose time and memory are limited. The exit code is 1 if any
raised something else than an error for people, took more than 10 s, or more than 1 GB above what
an idle process has.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from separator.checkpoints.foreign import read_bag, read_folder, read_foreign
from separator.errors import SeparatorError
from separator.networks import build_network

LIMIT_SECONDS = 10
LIMIT_BYTES = 1_000_000_000
HOSTILE: list[Any] = [
    *(None, True, -1, 0, 1, 2**31, 10**12, 1e308, float("nan"), float("inf"), "", "x" * 10_000),
    *([], {}, [[]], [None] * 100, {"a": {"a": {"a": {}}}}, "../../etc/passwd", "\ud800", b"\x00"),
]
REMAINS = ("model", "refused")

Case = tuple[Path, Path | None]


def roformer(folder: Path) -> Case:
    """Write a checkpoint with its YAML."""
    sizes = {"dim": 8, "depth": 1, "heads": 2, "dim_head": 4, "hop_length": 512}
    network = build_network("bs_roformer", stems=["vocals"], **sizes)
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, folder / "x.ckpt")
    sections = {
        "audio": {"chunk_size": 44100, "sample_rate": 44100},
        "training": {"instruments": ["vocals", "other"], "target_instrument": "vocals"},
        "model": {"dim": 8, "depth": 1, "stft_hop_length": 512, "freqs_per_bands": [2, 4]},
        "inference": {"num_overlap": 2},
    }
    (folder / "x.yaml").write_text(yaml.safe_dump(sections))
    return folder / "x.ckpt", folder / "x.yaml"


def scnet(folder: Path) -> Case:
    """Write a checkpoint that needs no YAML."""
    network = build_network("scnet", stems=["a", "b", "c", "d"], dims=(4, 8, 12))
    torch.save({"best_state": network.state_dict()}, folder / "x.th")
    return folder / "x.th", None


def demucs(folder: Path) -> Case:
    """Write a safetensors file of Demucs with its arguments."""
    sizes = {"hidden_channels": 4, "depth": 2, "n_fft": 128}
    network = build_network("hdemucs", stems=["drums", "vocals"], **sizes)
    kwargs = {"sources": ["drums", "vocals"], "channels": 4, "depth": 2, "nfft": 128, "segment": 7}
    metadata = {"klass": "demucs.hdemucs.HDemucs", "args": "[]", "kwargs": json.dumps(kwargs)}
    tensors = {key: value.clone() for key, value in network.state_dict().items()}
    save_file(tensors, folder / "x.safetensors", metadata=metadata)
    return folder / "x.safetensors", None


def unmix(folder: Path) -> Case:
    """Write a folder of Open-Unmix."""
    sizes = {"hidden_size": 8, "max_bin": 20, "n_fft": 128, "hop_length": 32}
    network = build_network("open_unmix", stems=["vocals"], **sizes)
    state = {key.split(".", 2)[2]: value for key, value in network.state_dict().items()}
    (folder / "set").mkdir()
    torch.save(state, folder / "set" / "vocals.pth")
    (folder / "set" / "vocals.json").write_text("{}")
    (folder / "set" / "separator.json").write_text(json.dumps({"sample_rate": 44100, "nhop": 32}))
    return folder / "set", None


def bag(folder: Path) -> Case:
    """Write the YAML of a bag, without its files."""
    fields = {"models": ["abc", "def"], "weights": [[1.0], [0.0]], "segment": 4}
    (folder / "bag.yaml").write_text(yaml.safe_dump(fields))
    return folder / "bag.yaml", None


def flip(content: bytes, rng: random.Random) -> bytes:
    """Change some bytes."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 4, 64))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    """Leave a stretch out, or all that follows."""
    start = rng.randrange(len(content))
    end = rng.randrange(start, len(content)) if rng.random() < 0.5 else len(content)
    return content[:start] + content[end:]


def double(content: bytes, rng: random.Random) -> bytes:
    """Repeat a stretch."""
    start, end = sorted(rng.randrange(len(content)) for _ in range(2))
    return content[:end] + content[start:]


def falsified(data: Any, rng: random.Random) -> Any:
    """Replace one value of nested containers by a hostile one."""
    if isinstance(data, dict) and data and rng.random() < 0.9:
        key = rng.choice(list(data))
        return {**data, key: falsified(data[key], rng)}
    if isinstance(data, list) and data and rng.random() < 0.7:
        place = rng.randrange(len(data))
        return [*data[:place], falsified(data[place], rng), *data[place + 1 :]]
    return rng.choice(HOSTILE)


def falsify(path: Path, rng: random.Random) -> None:
    """Replace a value in a file, by what the file is."""
    if path.suffix == ".yaml":
        path.write_text(yaml.dump(falsified(yaml.safe_load(path.read_text()), rng)))
    elif path.suffix == ".json":
        path.write_text(json.dumps(falsified(json.loads(path.read_text()), rng), default=str))
    elif path.suffix == ".safetensors":
        kwargs = {"sources": ["drums", "vocals"], "channels": 4, "depth": 2, "nfft": 128}
        kwargs = falsified(kwargs, rng)
        metadata = {"klass": "demucs.htdemucs.HTDemucs", "args": "[]"}
        metadata["kwargs"] = json.dumps(kwargs, default=str)
        save_file({"a": torch.zeros(3)}, path, metadata=metadata)
    else:
        torch.save(falsified(torch.load(path, weights_only=True), rng), path)


def damage(path: Path, rng: random.Random) -> str:
    """Change one file of a case; return how."""
    files = sorted(file for file in path.rglob("*")) if path.is_dir() else [path]
    file = rng.choice(files)
    how = rng.choice((flip, cut, double, falsify))
    if how is falsify:
        falsify(file, rng)
    else:
        file.write_bytes(how(file.read_bytes(), rng))
    return f"{how.__name__} {file.name}"


def attempt(path: Path, config: Path | None) -> str:
    """Read a case; name the outcome."""
    try:
        if path.is_dir():
            read_folder(path)
        elif path.suffix == ".yaml":
            read_bag(path)
        else:
            read_foreign(path, config)
    except SeparatorError as error:
        return "refused" if "\n" not in str(error) else f"several lines: {error}"
    except BaseException:
        return f"traceback: {traceback.format_exc(limit=-3)}"
    return "model"


def in_a_process(work: Callable[[], str], idle: int) -> str:
    """Run work in a child; name the outcome, also of one that is killed or takes too much."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(LIMIT_SECONDS)
        os.close(read)
        os.write(write, work().encode(errors="replace")[:60_000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        outcome = pipe.read().decode()
    _, status, usage = os.wait4(child, 0)
    if status:
        return f"killed by signal {status & 127} after {LIMIT_SECONDS} s or less"
    if usage.ru_maxrss * 1024 > idle + LIMIT_BYTES:
        return f"memory: {usage.ru_maxrss / 1e6:.2f} GB"
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng, outcomes, bad = random.Random(options.seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        kinds = {}
        for make in (roformer, scnet, demucs, unmix, bag):
            (root / make.__name__).mkdir()
            kinds[make.__name__] = make(root / make.__name__)
            attempt(*kinds[make.__name__])  # imports what it needs, before children do
        idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            kind = rng.choice(list(kinds))
            folder = root / "case"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(root / kind, folder)
            path, config = (p and folder / p.relative_to(root / kind) for p in kinds[kind])
            try:
                how = damage(rng.choice([p for p in (path, config) if p]), rng)
            except (pickle.PicklingError, UnicodeEncodeError, TypeError, yaml.YAMLError):
                continue  # what can't be written needs no reader
            outcome = in_a_process(lambda p=path, c=config: attempt(p, c), idle)
            outcomes[outcome if outcome in REMAINS else "bad"] += 1
            if outcome not in REMAINS:
                bad += 1
                print(f"{kind}, {how}: {outcome}", file=sys.stderr)
    print(f"{sum(outcomes.values())} cases of seed {options.seed}: {dict(outcomes)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
