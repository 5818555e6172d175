"""The STFT as a stream: spectrograms of any length in flat memory.

    blocks ──reflect──> frames, a group at a time ──function──> frames ──overlap-add──> blocks

                 ├──────── n_fft ────────┤
      frame 0    ▁▂▄▆█▆▄▂▁
      frame 1       ▁▂▄▆█▆▄▂▁              final as soon as no later frame covers it
      frame 2          ▁▂▄▆█▆▄▂▁

Frames, window and edges are those of `STFT`: what comes out is what its transform of the whole
track would have given.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

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
    stft = STFT(n_fft, hop_length)
    length = 0

    def counted() -> Iterator[Tensor]:
        nonlocal length
        for block in blocks:
            length += block.shape[-1]
            yield block

    adder = _OverlapAdd(stft, skip=n_fft // 2)
    done = 0
    for spectrogram in _spectrograms(reflected(counted(), n_fft // 2), stft, frames):
        ready = adder.add(function(spectrogram))
        # Where the track ended within this group, its mirror image came out too.
        ready = ready[..., : length - done]
        done += ready.shape[-1]
        yield ready
    if done < length:
        yield adder.rest(length - done)


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


class _OverlapAdd:
    """Turn frames back into a signal: windowed, added, divided by the sum of squared windows."""

    def __init__(self, stft: STFT, skip: int) -> None:
        self._window, self._hop = stft.window, stft.hop_length
        self._skip = skip  # samples of the mirror image at the beginning
        self._sum: Tensor | None = None  # (..., time), what later frames add to
        self._weight: Tensor | None = None  # (time,)

    def add(self, spectrogram: Tensor) -> Tensor:
        """Add frames `(..., freq, frames)`; return the samples that are final."""
        window = self._window.unsqueeze(1)  # (n_fft, 1)
        count = spectrogram.shape[-1]
        pieces = torch.fft.irfft(spectrogram, n=len(window), dim=-2) * window
        self._sum = self._join(self._sum, pieces)
        self._weight = self._join(self._weight, window.square().expand(-1, count))
        return self.rest(count * self._hop)

    def rest(self, samples: int) -> Tensor:
        """Take the next samples, whether they are final or not."""
        assert self._sum is not None and self._weight is not None
        begin = min(self._skip, samples)
        self._skip -= begin
        ready = self._sum[..., begin:samples] / self._weight[begin:samples]
        self._sum, self._weight = self._sum[..., samples:], self._weight[samples:]
        return ready

    def _join(self, before: Tensor | None, pieces: Tensor) -> Tensor:
        """Overlap frames `(..., n_fft, frames)`, and add what is left of the ones before."""
        lead, (size, count) = pieces.shape[:-2], pieces.shape[-2:]
        length = size + (count - 1) * self._hop
        folded = F.fold(
            pieces.reshape(-1, size, count), (1, length), (1, size), stride=(1, self._hop)
        ).reshape(*lead, length)
        if before is None:
            return folded
        return folded + F.pad(before, (0, length - before.shape[-1]))
