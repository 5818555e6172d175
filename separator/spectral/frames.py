"""The STFT as a stream: spectrograms of any length in flat memory.

    blocks ──reflect──> frames, a group at a time ──function──> frames ──overlap-add──> blocks

                 ├──────── n_fft ────────┤
      frame 0    ▁▂▄▆█▆▄▂▁
      frame 1       ▁▂▄▆█▆▄▂▁              final as soon as no later frame covers it
      frame 2          ▁▂▄▆█▆▄▂▁

Frames, window and edges are those of `STFT`: what comes out is what its transform of the whole
track would have given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from separator.spectral.overlap_add import OverlapAdd
from separator.spectral.stft import STFT


def through_stft(
    blocks: Iterable[Tensor],
    function: Callable[[Tensor], Tensor],
    *,
    n_fft: int = 4096,
    hop_length: int = 1024,
    frames: int = 64,
) -> Iterator[Tensor]:
    """Apply a function to the spectrogram of a stream, some frames at a time.

    Shape:
        - blocks: `(..., time)`, float32, any `time`
        - function: `(..., freq, frames) -> (..., freq, frames)`, complex; leading axes may change
        - yields: `(..., time)`, together as long as the input
    """
    with torch.device("cpu"):  # where streams are, whatever the caller's default
        stft = STFT(n_fft, hop_length)
    window = stft.window.unsqueeze(1)  # (n_fft, 1)
    adder = OverlapAdd()
    length = 0

    def counted() -> Iterator[Tensor]:
        nonlocal length
        for block in blocks:
            length += block.shape[-1]
            yield block

    def sums() -> Iterator[Tensor]:
        start = 0
        for spectrogram in _spectrograms(reflected(counted(), n_fft // 2), stft, frames):
            count = spectrogram.shape[-1]
            pieces = torch.fft.irfft(function(spectrogram), n=n_fft, dim=-2) * window
            weights = window.square().expand(-1, count)
            adder.add_sum(_folded(pieces, hop_length), _folded(weights, hop_length))
            start += count * hop_length
            yield adder.take(start)
        if (rest := adder.finish()) is not None:
            yield rest

    done = -(n_fft // 2)  # the mirror images of both ends came out, too
    for piece in sums():
        yield piece[..., max(0, -done) : max(0, length - done)]
        done += piece.shape[-1]


def reflected(blocks: Iterable[Tensor], samples: int) -> Iterator[Tensor]:
    """Put the mirror image of its ends before and after a stream `(..., time)`.

    A stream too short for that gets zeros up to `samples + 1`, as in `STFT`.

    >>> torch.cat(list(reflected([torch.tensor([1, 2]), torch.tensor([3, 4])], 2)))
    tensor([3, 2, 1, 2, 3, 4, 3, 2])
    """
    held: Tensor | None = None
    begun = False
    for block in blocks:
        held = block if held is None else torch.cat([held, block], dim=-1)
        ready = held.shape[-1] - samples - 1  # the last ones are needed for the other mirror
        if ready < 0:
            continue
        if not begun:
            yield held[..., 1 : samples + 1].flip(-1)
            begun = True
        yield held[..., :ready]
        held = held[..., ready:]
    if held is None or not (begun or held.shape[-1]):
        return
    if not begun:
        held = F.pad(held, (0, samples + 1 - held.shape[-1]))
        yield held[..., 1:].flip(-1)
    yield held
    yield held[..., :-1].flip(-1)


def _spectrograms(blocks: Iterable[Tensor], stft: STFT, frames: int) -> Iterator[Tensor]:
    """Yield the frames of a stream, `(..., freq, up to frames)`."""
    size = stft.n_fft + (frames - 1) * stft.hop_length
    held: Tensor | None = None
    for block in blocks:
        held = block if held is None else torch.cat([held, block], dim=-1)
        while held.shape[-1] >= size:
            yield _transform(held[..., :size], stft)
            held = held[..., frames * stft.hop_length :]
    if held is not None and held.shape[-1] >= stft.n_fft:
        yield _transform(held, stft)


def _transform(signal: Tensor, stft: STFT) -> Tensor:
    pieces = signal.unfold(-1, stft.n_fft, stft.hop_length) * stft.window
    spectrogram: Tensor = torch.fft.rfft(pieces)  # (..., frames, freq)
    return spectrogram.mT


def _folded(pieces: Tensor, hop_length: int) -> Tensor:
    """Add overlapping frames: `(..., n_fft, frames) -> (..., time)`."""
    lead, (size, count) = pieces.shape[:-2], pieces.shape[-2:]
    length = size + (count - 1) * hop_length
    flat = pieces.reshape(-1, size, count)
    return F.fold(flat, (1, length), (1, size), stride=(1, hop_length)).reshape(*lead, length)
