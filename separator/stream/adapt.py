"""Bring a song into the form that a model was trained on, and its stems back into the song's.

    song (channels, time) ──> the model's rate ──> pairs (pairs, 2, time)
    stems (stems, channels, time) <── the song's rate <── channels

A mono channel is given to a stereo model as two equal ones, whose estimates are averaged; more
than two channels are separated in left/right pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from separator.audio.info import SAMPLE_RATES
from separator.audio.layout import Layout, channel_pairs
from separator.audio.resample import Block, resampled
from separator.errors import AudioError, ConfigError


@dataclass(frozen=True)
class Adapter:
    """Difference between a song and what a model wants.

    Attributes:
        song_rate: Hz.
        model_rate: Hz.
        pairs: Channels of the song that go through the model together; see `pair_channels`.
    """

    song_rate: int
    model_rate: int
    pairs: tuple[tuple[int, ...], ...]

    def to_model(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Turn blocks `(channels, time)` into blocks `(pairs, model channels, time)`."""
        index = torch.tensor(self.pairs, device="cpu")
        for block in _resampled(blocks, self.song_rate, self.model_rate):
            yield block[index]

    def to_song(self, estimates: Iterable[Tensor]) -> Iterator[Tensor]:
        """Turn `(pairs, stems, model channels, time)` into blocks `(stems, channels, time)`.

        After resampling there may be a few samples more than the song has.
        """
        restored = map(self._unpair, estimates)
        if self.song_rate == self.model_rate:
            yield from restored
            return
        stems = 1

        def flattened() -> Iterator[Tensor]:
            nonlocal stems
            for block in restored:
                stems = len(block)
                yield block.flatten(0, 1)

        for block in _resampled(flattened(), self.model_rate, self.song_rate):
            yield block.reshape(stems, -1, block.shape[-1])

    def _unpair(self, block: Tensor) -> Tensor:
        channels = []
        for pair, estimate in zip(self.pairs, block, strict=True):  # (stems, model channels, time)
            if len(set(pair)) == 1:
                channels.append((pair[0], estimate.mean(1)))
            else:
                channels += [(channel, estimate[:, i]) for i, channel in enumerate(pair)]
        return torch.stack([audio for _, audio in sorted(channels, key=lambda item: item[0])], 1)


def pair_channels(
    song_channels: int, model_channels: int, layout: Layout | None = None
) -> tuple[tuple[int, ...], ...]:
    """Say which channels of a song go through a model together; a single one is repeated.

    Raises:
        ConfigError: The model takes more than two channels, and not as many as the song has.

    >>> pair_channels(6, 2)
    ((0, 1), (2, 2), (3, 3), (4, 5))
    >>> pair_channels(2, 1)
    ((0,), (1,))
    """
    if model_channels == 1:
        return tuple((channel,) for channel in range(song_channels))
    if model_channels == 2:
        pairs = channel_pairs(song_channels, layout)
        return tuple(pair if len(pair) == 2 else pair * 2 for pair in pairs)
    if model_channels == song_channels:
        return (tuple(range(song_channels)),)
    raise ConfigError(f"The model takes {model_channels} channels, the song has {song_channels}.")


def check_rate(sample_rate: int) -> None:
    """Refuse what is no rate.

    Raises:
        ConfigError: Not a whole number, too low for music, or too high.
    """
    if not isinstance(sample_rate, Integral) or sample_rate not in SAMPLE_RATES:
        raise ConfigError(
            f"The sample rate is {sample_rate!r}; allowed: a whole number of Hz from "
            f"{SAMPLE_RATES.start} to {SAMPLE_RATES.stop - 1}."
        )


def as_audio(block: Tensor | Block, sample_rate: int, position: int = 0) -> Tensor:
    """Return a block as a float32 tensor on the CPU, without a history; shared where it can be.

    Args:
        block: Any real samples.
        sample_rate: Hz.
        position: Samples before the block, for the message.

    Each is copied: a caller may fill the same memory again for the next block.

    Raises:
        AudioError: A sample that is not finite.
        ConfigError: A block that is not `(channels, time)`.
    """
    if not isinstance(block, Tensor):  # torch knows no negative strides and no foreign bytes
        block = torch.from_numpy(np.ascontiguousarray(block, dtype=np.float32))
    audio = block.detach().to("cpu", torch.float32)
    if audio.ndim != 2 or not 1 <= audio.shape[0] <= 64:
        raise ConfigError(f"Audio has the shape {tuple(audio.shape)}; wanted: (channels, time).")
    if not torch.isfinite(audio).all():
        first = position + int((~torch.isfinite(audio)).any(0).nonzero()[0])
        raise AudioError(
            f"The audio is not a finite number at {first / sample_rate:.3f} s; mend or cut it."
        )
    return audio


def checked(blocks: Iterable[Tensor | Block], sample_rate: int) -> Iterator[Tensor]:
    """Turn blocks into tensors of their own, so that whoever gives them may fill them again.

    Raises:
        AudioError: A sample that is not finite.
        ConfigError: A block that is not `(channels, time)`, or not of as many channels as others.
    """
    position, channels = 0, 0
    for block in blocks:
        audio = as_audio(block, sample_rate, position)
        channels = channels or len(audio)
        if len(audio) != channels:
            raise ConfigError(
                f"A block has {len(audio)} channels, those before it have {channels}; wanted: the "
                "same number in all."
            )
        position += audio.shape[-1]
        yield audio.clone()


def _resampled(blocks: Iterable[Tensor], rate_in: int, rate_out: int) -> Iterator[Tensor]:
    if rate_in == rate_out:
        yield from blocks
        return
    for block in resampled((block.numpy() for block in blocks), rate_in, rate_out):
        yield torch.from_numpy(block)
