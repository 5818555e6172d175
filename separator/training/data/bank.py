"""A small bank of samples on the device, which feeds a GPU without touching the disk.

    bank (<= 64 MiB)                        segment
    clip 17 |~~~~~~~~| -> faster, lower      |   ~~~~~~~~   |   a stem is a sum of clips, each at
    clip 80 |~~~~~~~~| -> placed, filtered   |~~~~~~~       |   its own speed, time and place

What is drawn is a pure function of a generator. The music makes no sense, but every partial,
breath and stroke is real (or as real as what the bank was made of), and no two segments are alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor

from separator.errors import ConfigError
from separator.files import whole_file
from separator.schema import Count, Strict
from separator.training.data.augmentation import Equalizer, uniform
from separator.training.data.cache import packed
from separator.training.data.mixing import Library
from separator.training.data.sources import Plan
from separator.words import nearest

CLIP_FADE = 0.005  # seconds at both ends of a clip
_BITS = 24  # of a position behind the binary point: float32 would have 6 at the end of a clip


class Banked(Strict):
    """Options of stems drawn from a bank's clips.

    Attributes:
        path: The bank, see `scripts/make_bank.py`.
        clips: Most clips of a stem at once; at least one.
        semitones: Highest change of speed, up and down, as a change of pitch.
        pan: Highest shift to a side: 0 none, 1 all the way.
        width: Lowest share of a clip's stereo width that is kept.
        equalizer: Applied to whole stems.
    """

    path: str
    clips: Count = 2
    semitones: Annotated[float, Field(ge=0, le=24)] = 4.0
    pan: Annotated[float, Field(ge=0, le=1)] = 0.3
    width: Annotated[float, Field(ge=0, le=1)] = 0.5
    equalizer: Equalizer | None = Equalizer(chance=0.5)


@dataclass(frozen=True)
class Bank:
    """Clips of stems, all of one length.

    Attributes:
        samples: `(clips, channels, time)`, int16.
        scales: `(clips,)`, what to multiply samples by for an amplitude.
        counts: Number of clips of each stem, in their order in `samples`.
        sample_rate: Hz.
    """

    samples: Tensor
    scales: Tensor
    counts: Mapping[str, int]
    sample_rate: int

    def to(self, device: torch.device) -> Bank:
        """Return the bank on another device."""
        samples, scales = self.samples.to(device), self.scales.to(device)
        return Bank(samples, scales, self.counts, self.sample_rate)

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        facts = {"sample_rate": str(self.sample_rate), "counts": json.dumps(dict(self.counts))}
        with whole_file(path) as part:
            save_file({"samples": self.samples, "scales": self.scales}, part, metadata=facts)

    @classmethod
    def load(cls, path: Path) -> Bank:
        """Read what `save` wrote.

        Raises:
            ConfigError: The file can't be read or isn't a bank.
        """
        try:
            with safe_open(path, framework="pt") as file:
                facts = file.metadata()
                samples, scales = file.get_tensor("samples"), file.get_tensor("scales")
            return cls(samples, scales, json.loads(facts["counts"]), int(facts["sample_rate"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"'{path}' is no bank of samples ({error}); make one with scripts/make_bank.py."
            ) from error

    def clips(self, stems: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the number of each stem's first clip and of its clips, `(stems,)` each.

        Raises:
            ConfigError: The bank has no such stem.
        """
        ends = dict(zip(self.counts, accumulate(self.counts.values()), strict=True))
        first = {stem: end - self.counts[stem] for stem, end in ends.items()}
        for stem in stems:
            if not self.counts.get(stem):
                known = nearest(stem, self.counts) or f" It has: {', '.join(self.counts)}."
                raise ConfigError(f"The bank of samples has no stem '{stem}'.{known}")
        place = self.samples.device
        return (
            torch.tensor([first[stem] for stem in stems], device=place),
            torch.tensor([self.counts[stem] for stem in stems], device=place),
        )

    def play(self, clip: Tensor, speed: Tensor, onset: Tensor, length: int) -> Tensor:
        """Play clips at a speed from an onset on, by cubic interpolation: `(..., channels, time)`.

        What is played faster may alias a little, like everything that samplers play.

        Args:
            clip: Numbers, `(...)`.
            speed: Factors, `(...)`.
            onset: When clips begin, in samples of the result, `(...)`; negative is before it.
            length: Length of the result in samples.
        """
        _, channels, time = self.samples.shape
        one = 1 << _BITS
        step = (speed * one).long()[..., None]
        time_since = torch.arange(length, device=clip.device) - onset.round().long()[..., None]
        place = time_since * step  # (..., time), fixed-point positions in the clip
        first = (place >> _BITS).clamp(0, time - 1)
        between = ((place & (one - 1)).float() / one)[..., None, :]
        rows = (clip[..., None] * channels + torch.arange(channels, device=clip.device)) * time
        samples = self.samples.view(-1)
        out = torch.zeros((*clip.shape, channels, length), device=clip.device)
        for shift, weight in zip((-1, 0, 1, 2), _weights(between), strict=True):
            taps = (first + shift).clamp(0, time - 1)[..., None, :]
            out += weight * samples[rows[..., None] + taps]
        inside = torch.minimum(place, (time - 1) * one - place) >> _BITS
        fade = (inside / (max(1.0, CLIP_FADE * self.sample_rate) * speed[..., None])).clamp(
            0.0, 1.0
        )
        return out * (fade * self.scales[clip][..., None])[..., None, :]


def _weights(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weigh four samples for a place `x` in [0, 1] between the middle two (Catmull-Rom).

    >>> [weight.item() for weight in _weights(torch.tensor(0.5))]
    [-0.0625, 0.5625, 0.5625, -0.0625]
    """
    return (
        x * (x * (2.0 - x) - 1.0) / 2.0,
        x * x * (3.0 * x - 5.0) / 2.0 + 1.0,
        x * (x * (4.0 - 3.0 * x) + 1.0) / 2.0,
        x * x * (x - 1.0) / 2.0,
    )


def draw(bank: Bank, options: Banked, plan: Plan, g: Generator) -> Tensor:
    """Return targets `(batch, stems, channels, time)` on the bank's device.

    `g` is a generator of that device.
    """
    first, count = bank.clips(plan.stems)
    size = (plan.batch, len(plan.stems), options.clips)
    like = bank.scales
    clip = first[:, None] + (uniform(size, 0.0, 1.0, like, g) * count[:, None]).long()
    speed = torch.exp2(uniform(size, -options.semitones, options.semitones, like, g) / 12.0)
    spare = plan.samples - bank.samples.shape[-1] / speed
    onset = uniform(size, 0.0, 1.0, like, g) * spare  # all of the shorter one within the longer
    wanted = 1 + (uniform((*size[:2], 1), 0.0, 1.0, like, g) * options.clips).long()
    plays = torch.arange(options.clips, device=like.device) < wanted
    pan = uniform(size, -options.pan, options.pan, like, g)
    width = uniform(size, options.width, 1.0, like, g)
    out = torch.zeros(plan.shape, device=like.device)
    for layer in range(options.clips):  # one at a time: positions take eight bytes a sample
        chosen = (..., layer)
        audio = bank.play(clip[chosen], speed[chosen], onset[chosen], plan.samples)
        placed = _placed(audio, pan[chosen], width[chosen], plan.channels)
        out += placed * plays[chosen][..., None, None]
    return options.equalizer(out, g, plan.sample_rate) if options.equalizer else out


def _placed(audio: Tensor, pan: Tensor, width: Tensor, channels: int) -> Tensor:
    """Narrow clips and move them to a side at constant power; mono is the mean."""
    middle = audio.mean(-2)
    if channels == 1:
        return middle[..., None, :]
    side = (audio[..., 0, :] - audio[..., -1, :]) / 2.0 * width[..., None]
    angle = (torch.pi / 4.0 * (1.0 + pan))[..., None]
    left, right = 2.0**0.5 * angle.cos(), 2.0**0.5 * angle.sin()
    return torch.stack([(middle + side) * left, (middle - side) * right], dim=-2)


class BankedSamples:
    """Batches drawn from a bank on a device.

    Raises:
        ConfigError: There is no bank, or it has another rate or lacks a stem.
    """

    def __init__(self, options: Banked, plan: Plan, device: torch.device) -> None:
        self.options, self.plan = options, plan
        self.bank = Bank.load(Path(options.path).expanduser()).to(device)
        self.bank.clips(plan.stems)
        if self.bank.sample_rate != plan.sample_rate:
            raise ConfigError(
                f"'{options.path}' was made at {self.bank.sample_rate} Hz, the network needs "
                f"{plan.sample_rate} Hz: make a bank at that rate."
            )

    def __getitem__(self, position: int) -> Tensor:
        """Return the batch of this position."""
        generator = self.plan.generator(position, self.bank.samples.device)
        return draw(self.bank, self.options, self.plan, generator)


def build_bank(
    library: Library,
    stems: Sequence[str],
    *,
    sample_rate: int,
    seconds: float = 6.0,
    megabytes: float = 64.0,
    seed: int = 0,
) -> Bank:
    """Choose clips in which the stems sound, as many of each stem as fit, and pack them.

    Args:
        library: What to choose from.
        stems: Names; they share the bank equally.
        sample_rate: Hz, the library's.
        seconds: Length of a clip.
        megabytes: Most that the samples take, in MiB.
        seed: Decides which windows are chosen.

    Raises:
        ConfigError: A stem never sounds, or not even one clip of each stem fits.
    """
    library.check(stems)
    length = round(seconds * sample_rate)
    most = int(megabytes * 2**20 / len(stems) / (2 * library.channels * length))
    if most < 1:
        raise ConfigError(
            f"{megabytes:g} MiB can't hold a clip of {seconds:g} s of each of {len(stems)} stems; "
            "shorten the clips or enlarge the bank."
        )
    rng = np.random.default_rng(seed)
    clips: list[Tensor] = []
    scales: list[float] = []
    counts: dict[str, int] = {}
    for stem in stems:
        windows = rng.permutation(library.windows(stem))[:most]
        counts[stem] = len(windows)
        for song, start in windows.tolist():
            audio = library.read(stem, song, start, length)
            # quiet clips keep their bits: full scale is the clip's own peak
            peak = max(float(np.abs(audio).max()), 1e-9)
            samples, scale = packed(audio / peak, "int16")
            clips.append(torch.from_numpy(samples))
            scales.append(scale * peak)
    return Bank(torch.stack(clips), torch.tensor(scales), counts, sample_rate)
