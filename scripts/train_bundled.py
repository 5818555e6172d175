"""Train the bundled model, from songs on disk to weights in `models/weights`.

    python scripts/make_synthetic_musdb.py data/synthetic --train 160 --test 20
    train="python scripts/train_bundled.py train data/synthetic"
    $train runs/first --depth 4 --expansion 2 --minutes 112
    $train runs/pocket --depth 4 --expansion 2 --start runs/first \
        --minutes 14 --seconds 6 --rate 0.3 --seed 7
    $train runs/varied --depth 4 --expansion 2 --start runs/pocket \
        --minutes 52 --seconds 6 --rate 0.4 --seed 11
    $train runs/deeper --depth 6 --expansion 2 --start runs/varied \
        --minutes 90 --seconds 6 --rate 0.6 --seed 13
    python scripts/make_synthetic_musdb.py data/synthetic --train 1000 --test 0 \
        --seed 10000 --duration 15
    $train runs/larger --start runs/deeper --minutes 97 --seconds 6 --rate 0.7 --seed 17
    python scripts/make_synthetic_musdb.py data/synthetic --train 317 --test 0 \
        --seed 20000 --duration 15
    python scripts/make_synthetic_musdb.py data/synthetic --train 80 --test 0 \
        --seed 40000 --duration 15 --style "hip hop"
    $train runs/next --start runs/larger --processes 1 --minutes 102 --seconds 6 \
        --rate 0.5 --seed 19
    python scripts/train_bundled.py export runs/next models

Any folder of the shape of MUSDB18-HQ will do. Training is meant for a few CPU cores: one process
per core, each with one thread and its own songs, gradients averaged after every step. That loses
nothing to waiting threads when other programs want the cores too. The learning rate follows the
clock, so the budget is kept on any machine; a run that was stopped goes on from its checkpoint. A
run of a larger network than the one it starts from begins with new layers and units that change
nothing. (In the first two runs behind the weights that are shipped, stems were not yet sped up and
coloured, and before the last one nobody rapped. More songs are worth as much as more training: on
160 songs the network scored 0.7 dB better on these than on others.)
"""

import argparse
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file
from scipy.fft import irfft, next_fast_len, rfft
from torch import Tensor, nn

from separator.networks import build_network
from separator.training.losses import negative_sdr
from separator.zoo.cards import Card, parse_card, read_card
from separator.zoo.downloads import sha256_of
from separator.zoo.writing import write_card

NAME = "pocket"
STEMS = ("drums", "bass", "other", "vocals")
BANDS = [4] * 12 + [8] * 8 + [16] * 8 + [48] * 7 + [128] * 6 + [705]  # of 2,049 bins
NETWORK: dict[str, Any] = {
    "stems": STEMS,
    "bands": BANDS,
    "n_fft": 4096,
    "hop_length": 2048,
    "win_length": 4096,
    "dim": 96,
    "depth": 8,
    "heads": 4,
    "dim_head": 24,
    "ff_expansion": 4,
    "time_transformer_depth": 1,
    "freq_transformer_depth": 1,
    "mask_estimator_depth": 1,
    "mlp_expansion_factor": 1,
}
SAMPLE_RATE = 44100
BATCH = 2  # segments per process and step
MATRIX_RATE, OTHER_RATE = 4e-3, 1e-3  # highest learning rates of Muon and AdamW
EMA = 0.995
OUTPUTS = ("to_out.0.weight", "net.4.weight", "net.4.bias")  # of attention and of feed-forward
SPEED = 0.25  # octaves by which half of the stems are sped up or slowed down at most


class Songs:
    """Draw training segments from the songs of a folder: `(stems, channels, time)`."""

    def __init__(self, folder: Path, seconds: float, seed: int) -> None:
        self.folder = folder
        self.samples = int(seconds * SAMPLE_RATE)
        self.rng = np.random.default_rng(seed)
        self.rescan()

    def rescan(self) -> None:
        """Find the finished songs; more may have been rendered meanwhile."""
        self.songs = sorted(path.parent for path in self.folder.glob("*/mixture.wav"))
        if not self.songs:
            raise SystemExit(f"No songs in {self.folder}: make them with make_synthetic_musdb.py.")

    def segment(self) -> np.ndarray:
        """Mix one song's stems, or (half of the time) stems of several songs."""
        coherent = self.rng.random() < 0.5
        song, place, frames = self._draw()
        stems = []
        for stem in STEMS:
            if not coherent:
                song, place, frames = self._draw()
            stems.append(self._augmented(self._read(song / f"{stem}.wav", place, frames)))
        return np.stack(stems)

    def _draw(self) -> tuple[Path, float, int]:
        """Return a song, where to begin, and how many samples to squeeze into the segment."""
        song = self.songs[int(self.rng.integers(len(self.songs)))]
        speed = 2 ** self.rng.uniform(-SPEED, SPEED) if self.rng.random() < 0.5 else 1.0
        return song, float(self.rng.random()), next_fast_len(round(self.samples * speed), real=True)

    def _read(self, path: Path, place: float, frames: int) -> np.ndarray:
        with soundfile.SoundFile(path) as file:
            file.seek(int(place * max(file.frames - frames, 0)))
            audio = file.read(frames, dtype="float32", always_2d=True, fill_value=0.0)
        return audio.T

    def _augmented(self, audio: np.ndarray) -> np.ndarray:
        """Vary timbre, level (+-6 dB), sides and polarity; leave the stem out now and then."""
        if self.rng.random() < 0.05:
            return np.zeros((len(audio), self.samples), np.float32)
        audio = self._revoiced(audio)
        gain = 10 ** (self.rng.uniform(-6, 6) / 20) * self.rng.choice((-1.0, 1.0))
        return (audio[::-1] if self.rng.random() < 0.5 else audio) * np.float32(gain)

    def _revoiced(self, audio: np.ndarray) -> np.ndarray:
        """Squeeze the audio into the segment, which shifts pitch and formants, and colour it."""
        colored = self.rng.random() < 0.5
        if audio.shape[-1] == self.samples and not colored:
            return audio
        spectrum = rfft(audio)
        if colored:
            octaves = np.log2(np.arange(1, spectrum.shape[-1] + 1) / audio.shape[-1])
            places = np.linspace(octaves[0], octaves[-1], 16)  # about an octave apart
            spectrum *= 10 ** (np.interp(octaves, places, self.rng.uniform(-6, 6, 16)) / 20)
        return irfft(spectrum, self.samples) * np.float32(self.samples / audio.shape[-1])

    def batch(self) -> Tensor:
        """Return targets `(batch, stems, channels, time)`."""
        return torch.from_numpy(np.stack([self.segment() for _ in range(BATCH)]))


class Optimizer:
    """Muon for the transformer's matrices, AdamW for everything else, one schedule for both."""

    def __init__(self, network: nn.Module, rate: float) -> None:
        self.rate = rate
        named = list(network.named_parameters())
        matrix = {name for name, p in named if p.ndim == 2 and ".weight" in name}
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                [p for name, p in named if name in matrix],
                weight_decay=0.01,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(
                [p for name, p in named if name not in matrix], betas=(0.9, 0.98), weight_decay=0.0
            ),
        ]

    def step(self, progress: float) -> None:
        """Update at the rate of this point of the run: short warm-up, then a cosine to zero."""
        warm = min(progress / 0.03, 1.0)
        scale = self.rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0)))
        for part, rate in zip(self.parts, (MATRIX_RATE, OTHER_RATE), strict=True):
            for group in part.param_groups:
                group["lr"] = scale * rate
            part.step()
            part.zero_grad()


def start_quietly(network: nn.Module) -> None:
    """Make the first masks small.

    Random masks of full size are worse than silence, and the quickest way from there to silence is
    to shut the gates of the mask estimators, which then let no gradient through.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "mask_estimators" in name:
                parameter.mul_(0.1)


def averaged(run: Path) -> dict[str, Tensor]:
    """Return the averaged weights of a run."""
    average = torch.load(run / "checkpoint.pt", weights_only=True)["average"]
    prefix = "module."
    return {
        name.removeprefix(prefix): weights
        for name, weights in average.items()
        if name.startswith(prefix)
    }


def start_from(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load the weights of a smaller network: new layers and units begin as ones that do nothing."""
    state = network.state_dict()
    for name, new in state.items():
        old = weights.get(name)
        if name.endswith(OUTPUTS):
            new.zero_()
        if old is not None:
            new[tuple(map(slice, old.shape))] = old
        elif ".layers." not in name:
            raise SystemExit(f"The earlier run has no '{name}'.")
    network.load_state_dict(state)


class Run:
    """The state of a training run and its checkpoint."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.path = options.run / "checkpoint.pt"
        torch.manual_seed(options.seed)
        size = {"depth": options.depth, "ff_expansion": options.expansion}
        self.network = build_network("bs_roformer", **NETWORK | size)
        if options.start is None:
            start_quietly(self.network)
        else:
            start_from(self.network, averaged(options.start))
        self.average = torch.optim.swa_utils.AveragedModel(
            self.network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA)
        )
        self.optimizer = Optimizer(self.network, options.rate)
        self.steps, self.elapsed = 0, 0.0
        if self.path.exists():
            self._load()

    def save(self) -> None:
        """Write the checkpoint; an interrupted write leaves the earlier one."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": [part.state_dict() for part in self.optimizer.parts],
            "steps": self.steps,
            "elapsed": self.elapsed,
        }
        torch.save(state, self.path.with_suffix(".part"))
        self.path.with_suffix(".part").rename(self.path)

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for part, saved in zip(self.optimizer.parts, state["optimizer"], strict=True):
            part.load_state_dict(saved)
        self.steps, self.elapsed = state["steps"], state["elapsed"]


def shared_mean(network: nn.Module, numbers: list[float]) -> list[float]:
    """Average the gradients, and some numbers with them, over all processes."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients] + [torch.tensor(numbers)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    pieces = flat.split([g.numel() for g in gradients] + [len(numbers)])
    for gradient, piece in zip(gradients, pieces[:-1], strict=True):
        gradient.copy_(piece.view_as(gradient))
    return [float(number) for number in pieces[-1]]


def steps(run: Run, songs: Songs, budget: float) -> Iterator[tuple[float, float]]:
    """Train until the budget (seconds) is used; yield progress and loss of every step."""
    clock = time.monotonic() - run.elapsed
    progress = 0.0
    while progress < 1.0:
        targets = songs.batch()
        with torch.autocast("cpu", torch.bfloat16):
            estimates = run.network(targets.sum(1))
        loss = negative_sdr(estimates.float(), targets)
        loss.backward()
        run.elapsed = time.monotonic() - clock
        # All processes must agree on the schedule, so the clock is averaged too.
        progress, value = shared_mean(run.network, [run.elapsed / budget, loss.item()])
        if not math.isfinite(value):
            raise SystemExit(f"The loss is {value} at step {run.steps}: stopped.")
        nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
        run.optimizer.step(progress)
        run.average.update_parameters(run.network)
        run.steps += 1
        yield progress, value


def train(rank: int, options: argparse.Namespace) -> None:
    """Run one of the training processes."""
    torch.set_num_threads(1)
    store = f"file://{(options.run / 'rendezvous').resolve()}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=options.processes)
    run = Run(options)
    seed = options.seed + 1000 * run.steps + rank
    songs = Songs(options.data / "train", options.seconds, seed)
    saved, started, losses = run.elapsed, run.steps, []
    for progress, loss in steps(run, songs, 60.0 * options.minutes):
        losses.append(loss)
        if rank == 0 and run.steps % 20 == 0:
            seen = (run.steps - started) * options.processes * BATCH * options.seconds
            print(
                f"step {run.steps} {progress:.1%} {run.elapsed:.0f} s {len(songs.songs)} songs "
                f"SDR {-np.mean(losses):.2f} dB {seen:.0f} audio-seconds",
                flush=True,
            )
            losses.clear()
        if run.elapsed - saved > 60.0 * options.save_every or progress >= 1.0:
            saved = run.elapsed
            songs.rescan()
            if rank == 0:
                run.save()
    dist.destroy_process_group()


def export(options: argparse.Namespace) -> None:
    """Write the averaged weights as float16 safetensors under their public names, and the card."""
    state = torch.load(options.run / "checkpoint.pt", weights_only=True)
    weights = {
        name: tensor.to(torch.float16).contiguous()
        for name, tensor in averaged(options.run).items()
    }
    path = options.models / "weights" / f"{NAME}.safetensors"
    save_file(weights, path.with_suffix(".part"), metadata={"format": "pt"})
    path.with_suffix(".part").rename(path).chmod(0o644)
    write_card(_card(path), options.models)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB after {state['steps']} steps")


def _card(path: Path) -> Card:
    """Describe the weights; what a person wrote into an earlier card is kept."""
    numbers = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    fields = {key: value for key, value in NETWORK.items() if key != "stems"}
    card = {
        "name": NAME,
        "description": "Drums, bass, other, vocals; small, for trying everything out",
        "network": "bs_roformer",
        "parameters": fields,
        "stems": list(STEMS),
        "segment": 6.0,
        "overlap": 0.5,
        "weights": {"file": f"weights/{path.name}", "format": "safetensors", **numbers},
        "licence": "MIT",
        "note": "Made on two busy CPU cores in eight hours: it shows the program at work, and real "
        "music sounds unlike what it was trained on. Use a larger model for your songs. It is weak "
        "where a stem is 10 dB below the song, in other instruments most of all, and takes some of "
        "a lead instrument for a singer while nobody sings.",
        "training_data": "Synthetic music only: songs composed and played by a seeded generator",
        "source": "scripts/train_bundled.py",
    }
    earlier = path.parent.parent / f"{NAME}.yaml"
    if earlier.exists():
        card |= {"scores": read_card(earlier).model_dump()["scores"]}
    return parse_card(card, earlier.name)


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = root.add_subparsers(required=True)
    one = commands.add_parser("train", help="train on DATA/train, keep the state in RUN")
    one.add_argument("data", type=Path)
    one.add_argument("run", type=Path)
    one.add_argument("--minutes", type=float, default=80.0, help="budget of the whole run")
    one.add_argument("--processes", type=int, default=os.cpu_count())
    one.add_argument("--save-every", type=float, default=4.0, help="minutes between checkpoints")
    one.add_argument("--seconds", type=float, default=3.0, help="length of a segment")
    one.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    one.add_argument("--depth", type=int, default=NETWORK["depth"], help="layers of transformers")
    one.add_argument("--expansion", type=int, default=NETWORK["ff_expansion"], help="of units")
    one.add_argument("--start", type=Path, help="an earlier run whose weights to start from")
    one.add_argument("--seed", type=int, default=0)
    one.set_defaults(work=launch)
    two = commands.add_parser("export", help="write the weights of RUN and their card")
    two.add_argument("run", type=Path)
    two.add_argument("models", type=Path, help="the folder of cards, with `weights` in it")
    two.set_defaults(work=export)
    return root


def launch(options: argparse.Namespace) -> None:
    options.run.mkdir(parents=True, exist_ok=True)
    (options.run / "rendezvous").unlink(missing_ok=True)
    # Keep freed blocks: handing hundreds of megabytes back to the system and asking for them
    # again at every layer costs as much as computing with them.
    os.environ.setdefault("MALLOC_MMAP_MAX_", "0")
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 36))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and end the processes first
    mp.spawn(train, args=(options,), nprocs=options.processes, daemon=True)


def main() -> None:
    options = parser().parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
