"""Vary batches of targets while training: in torch, on their device, by a generator alone.

    augmentation:
      swap: {}                                   # every field has a default
      gain: {low: -10, high: 10}                 # dB
      drop: {chance: 0.1}
      distortion: {chance: 0.05}                 # of the mixture alone

Each effect is a small schema that can be called: it draws who is hit and how hard, and leaves the
rest to `separator.training.data.effects`. Effects on stems come first, in the order of the fields
of `AugmentationOptions`; then stems are added up; then come effects on the mixture alone, which the
network has to undo.

Targets are `(batch, stems, channels, time)`. A generator on the CPU draws the same for every
device; one on the batch's device is faster where reverberation draws much noise.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor
from typing_extensions import Self

from separator.schema import FROM_LIST, Positive, Strict
from separator.training.data import effects

Chance = Annotated[float, Field(ge=0, le=1)]


#: Lowest and highest value, `[low, high]` in a recipe.
Range = Annotated[tuple[float, float], FROM_LIST]
PositiveRange = Annotated[tuple[Positive, Positive], FROM_LIST]


def uniform(size: tuple[int, ...], low: float, high: float, like: Tensor, g: Generator) -> Tensor:
    """Draw from [low, high), on the device and in the precision of `like`."""
    numbers = torch.rand(size, generator=g, device=g.device)
    return (low + (high - low) * numbers).to(like.device, like.dtype)


class Effect(Strict):
    """Change that hits each stem of each segment with a probability of `chance`."""

    chance: Chance = 1.0

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name, value in self:
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"'{name}' goes from low to high, got {value[0]:g}, {value[1]:g}")
        return self

    def __call__(self, targets: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Return new targets; only what is hit is computed."""
        flat = targets.flatten(0, 1)  # (items, channels, time)
        hit = self.draw(len(flat), g).to(flat.device)
        if len(hit) == 0:
            return targets
        return flat.index_copy(0, hit, self.change(flat[hit], g, sample_rate)).view_as(targets)

    def draw(self, count: int, g: Generator) -> Tensor:
        """Return the numbers of those that are hit."""
        return (torch.rand(count, generator=g, device=g.device) < self.chance).nonzero()[:, 0]

    def change(self, audio: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Change every item of `(items, channels, time)`."""
        raise NotImplementedError


class Repitch(Effect):
    """Change of pitch and tempo, alike for all stems of a segment, so that they stay together.

    Segments become shorter by the highest tempo, whether they are hit or not.

    Attributes:
        semitones: Highest change of pitch, up and down, evenly spread.
        tempo: Highest change of tempo as a fraction, up and down, evenly spread.

    Reference: Cohen-Hadria et al. (2019), Improving singing voice separation using deep U-Net and
    Wave-U-Net with data augmentation, arXiv 1903.01415. The defaults are those of Demucs.
    """

    chance: Chance = 0.2
    semitones: Annotated[float, Field(ge=0, le=12)] = 2.0
    tempo: Annotated[float, Field(ge=0, le=0.5)] = 0.12

    def __call__(self, targets: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Return new targets of `1 / (1 + tempo)` of the length."""
        length = math.floor(targets.shape[-1] / (1.0 + self.tempo) + 1e-6)  # 1120 / 1.12 = 1000
        out = targets[..., :length].clone()
        for number in self.draw(len(targets), g).tolist():
            semitones, tempo = (2.0 * torch.rand(2, generator=g, device=g.device) - 1.0).tolist()
            whole = targets[number].flatten(0, 1)[None]  # (1, stems * channels, time)
            changed = effects.repitch(whole, self.semitones * semitones, 1.0 + self.tempo * tempo)
            out[number] = changed[0, :, :length].view_as(out[number])
        return out


class Varispeed(Effect):
    """Segments played faster or slower, pitch and tempo alike, all stems of one together.

    Segments become shorter by the highest speed, whether they are hit or not.

    Attributes:
        octaves: Highest change, up and down, evenly spread.
    """

    chance: Chance = 0.5
    octaves: Annotated[float, Field(gt=0, le=1)] = 0.25

    def __call__(self, targets: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Return new targets of `2 ** -octaves` of the length."""
        length = math.floor(targets.shape[-1] * 2.0**-self.octaves + 1e-6)
        out = targets[..., :length].clone()
        for number in self.draw(len(targets), g).tolist():
            place = 2.0 * torch.rand(1, generator=g, device=g.device).item() - 1.0
            speed = 2.0 ** (self.octaves * place)
            whole = targets[number].flatten(0, 1)[None]  # (1, stems * channels, time)
            out[number] = effects.resample(whole, speed)[0, :, :length].view_as(out[number])
        return out


class Equalizer(Effect):
    """Chain of bells, each with a random place, width and gain.

    Attributes:
        bells: Number of filters.
        gain: Highest change at a bell's centre in dB, up and down, evenly spread.
        frequency: Range of centres in Hz, their logarithms evenly spread.
        q: Range of widths (centre over bandwidth), evenly spread.

    Reference: Bristow-Johnson, Cookbook formulae for audio EQ biquad filter coefficients; ranges
    as in the synthetic songs.
    """

    chance: Chance = 0.3
    bells: Annotated[int, Field(ge=1, le=16)] = 3
    gain: Annotated[float, Field(ge=0)] = 6.0
    frequency: PositiveRange = (80.0, 12000.0)
    q: PositiveRange = (0.5, 2.0)

    def change(self, audio: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Filter each item by a curve of its own."""
        size = (len(audio), self.bells)
        low, high = (math.log(min(f, 0.45 * sample_rate)) for f in self.frequency)
        centre = uniform(size, low, high, audio, g).exp()
        gain_db = uniform(size, -self.gain, self.gain, audio, g)
        q = uniform(size, *self.q, audio, g)
        return effects.equalize(audio, centre, gain_db, q, sample_rate)


class Compressor(Effect):
    """Reduction of dynamics.

    Attributes:
        threshold: Range in dB relative to the stem's RMS level.
        ratio: Range of ratios; 1 changes nothing.

    Reference: Giannoulis et al. (2012), Digital dynamic range compressor design; ranges as in the
    synthetic songs.
    """

    chance: Chance = 0.2
    threshold: Range = (-6.0, 6.0)
    ratio: PositiveRange = (1.5, 5.0)

    def change(self, audio: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Compress each item by a threshold and ratio of its own."""
        threshold = uniform((len(audio),), *self.threshold, audio, g)
        ratio = uniform((len(audio),), *self.ratio, audio, g)
        return effects.compress(audio, threshold, ratio)


class Reverb(Effect):
    """Diffuse room of decaying noise, a different one in each channel.

    Attributes:
        decay: Range in seconds until it has fallen by 60 dB.
        wet: Range of its level relative to the dry stem (amplitudes of white signals).

    Reference: Moorer (1979), About this reverberation business; ranges as in the synthetic songs.
    """

    chance: Chance = 0.1
    decay: PositiveRange = (0.2, 1.5)
    wet: Range = (0.05, 0.4)

    def change(self, audio: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Put each item into a room of its own."""
        taps = max(1, round(self.decay[1] * sample_rate))
        size = (len(audio), audio.shape[1], taps)
        noise = torch.randn(size, generator=g, device=g.device).to(audio.device, audio.dtype)
        decay = uniform((len(audio),), *self.decay, audio, g)
        wet = uniform((len(audio),), *self.wet, audio, g)
        return effects.reverberate(audio, effects.room(noise, decay, sample_rate), wet)


class Swap(Effect):
    """Exchange of left and right.

    Reference: Uhlich et al. (2017), Improving music source separation based on deep neural networks
    through data augmentation and network blending.
    """

    chance: Chance = 0.5

    def change(self, audio: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Reverse the channels."""
        return audio.flip(1)


class Polarity(Effect):
    """Sign of the waveform turned; from Demucs."""

    chance: Chance = 0.5

    def change(self, audio: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Negate."""
        return -audio


class Remix(Effect):
    """Exchange of each stem among the segments of a group, so that songs are mixed anew.

    Attributes:
        group: Neighbouring segments of a batch that swap stems; each group is hit or not.

    Reference: Uhlich et al. (2017), as for `Swap`; groups of 4 as in Demucs.
    """

    group: Annotated[int, Field(ge=2)] = 4

    def __call__(self, targets: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Return new targets."""
        groups = targets.split(self.group)
        hit = set(self.draw(len(groups), g).tolist())
        return torch.cat(
            [_shuffled(part, g) if i in hit else part for i, part in enumerate(groups)]
        )


def _shuffled(targets: Tensor, g: Generator) -> Tensor:
    """Permute the segments of each stem."""
    batch, stems = targets.shape[:2]
    order = torch.rand((batch, stems), generator=g, device=g.device).argsort(0).to(targets.device)
    return targets[order, torch.arange(stems, device=targets.device)]


class Gain(Effect):
    """Change of levels.

    Attributes:
        low, high: Range, evenly spread: -3 and 3 dB in BS-RoFormer (arXiv 2309.02612), -10 and 10
            dB in BSRNN (arXiv 2209.15174), factors 0.25 and 1.25 in Demucs and Open-Unmix.
        unit: Unit of the range.
    """

    low: float = -3.0
    high: float = 3.0
    unit: Literal["dB", "factor"] = "dB"

    @model_validator(mode="after")
    def _upwards(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"'low' must not exceed 'high', got {self.low:g} and {self.high:g}")
        return self

    def change(self, audio: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Multiply each item by a factor of its own."""
        number = uniform((len(audio), 1, 1), self.low, self.high, audio, g)
        return audio * (effects.factor(number) if self.unit == "dB" else number)


class Drop(Effect):
    """Silence stems: a tenth in BSRNN (arXiv 2209.15174) and BS-RoFormer (arXiv 2309.02612)."""

    chance: Chance = 0.1

    def change(self, audio: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Return silence."""
        return torch.zeros_like(audio)


class Distortion(Effect):
    """Soft clipping of the mixture, as of masters made too loud.

    Attributes:
        drive: Range in dB; 12 dB bring the highest peak down by some 10 dB.

    Reference: a hyperbolic tangent, see `separator.training.data.effects.distort`.
    """

    chance: Chance = 0.05
    drive: Range = (0.0, 12.0)

    def change(self, audio: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Bend the peaks of each item."""
        return effects.distort(audio, uniform((len(audio),), *self.drive, audio, g))


class Codec(Effect):
    """Something like a lossy codec that the mixture passes through.

    Attributes:
        coarseness: Range of quantizer steps over a band's RMS: 0.5 is hardly heard, 2 is bad.
        cutoff: Range in Hz of the low-pass: coders stop at 11 to 20 kHz.

    Reference: no real codec, see `separator.training.data.effects.code` for what is left out.
    """

    chance: Chance = 0.05
    coarseness: Range = (0.3, 1.5)
    cutoff: PositiveRange = (11000.0, 20000.0)

    def change(self, audio: Tensor, g: Generator, sample_rate: int) -> Tensor:
        """Code each item at a quality of its own."""
        coarseness = uniform((len(audio),), *self.coarseness, audio, g)
        cutoff = uniform((len(audio),), *self.cutoff, audio, g)
        return effects.code(audio, coarseness, (2.0 * cutoff / sample_rate).clamp_max(1.0))


MIXTURE_EFFECTS = ("distortion", "codec")


class AugmentationOptions(Strict):
    """Choice of effects; absent ones aren't applied. `MIXTURE_EFFECTS` leave the targets alone."""

    repitch: Repitch | None = None
    speed: Varispeed | None = None
    equalizer: Equalizer | None = None
    compressor: Compressor | None = None
    reverb: Reverb | None = None
    swap: Swap | None = None
    polarity: Polarity | None = None
    remix: Remix | None = None
    gain: Gain | None = None
    drop: Drop | None = None
    distortion: Distortion | None = None
    codec: Codec | None = None

    @property
    def stretch(self) -> float:
        """How much longer than wanted the segments must be that are augmented."""
        if self.speed:
            return float(2.0**self.speed.octaves)
        return 1.0 + self.repitch.tempo if self.repitch else 1.0

    @model_validator(mode="after")
    def _one_change_of_pitch(self) -> Self:
        if self.repitch and self.speed:
            raise ValueError("'repitch' and 'speed' both change pitch and tempo; choose one")
        return self


def augment(
    targets: Tensor, options: AugmentationOptions, generator: Generator, sample_rate: int
) -> tuple[Tensor, Tensor]:
    """Return the mixtures to separate and the targets to find in them.

    A pure function: the same targets, options and state of the generator give the same result.
    Without effects on the mixture, it is the sum of the targets.

    Shape:
        - targets: `(batch, stems, channels, time)`
        - result: `(batch, channels, length)` and `(batch, stems, channels, length)`; the length is
          `floor(time / options.stretch)`
    """
    on_stems = [effect for name, effect in options if effect and name not in MIXTURE_EFFECTS]
    on_mixture = [effect for name in MIXTURE_EFFECTS if (effect := getattr(options, name))]
    with torch.autocast(targets.device.type, enabled=False):  # these are signals, not features
        for effect in on_stems:
            targets = effect(targets, generator, sample_rate)
        mixture = targets.sum(1, keepdim=True)  # in the shape of a batch with one stem
        for effect in on_mixture:
            mixture = effect(mixture, generator, sample_rate)
    return mixture.squeeze(1), targets
