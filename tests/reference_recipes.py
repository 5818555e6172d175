"""Cases of whole tracks for the recipes, answered by Demucs' own `apply_model`.

scripts/make_reference_recipes.py runs it, and writes its answers to tests/data. The networks and
their weights are those of tests/reference.py.
"""

from typing import NamedTuple

import reference
import torch
from torch import Tensor

SEGMENT = 0.1  # seconds
#: Shorter than a segment, a last segment of 86 samples, and several segments of another overlap.
TRACKS = ((3001, 0.25), (10_007, 0.25), (15_000, 0.6))


class Track(NamedTuple):
    network: str
    samples: int
    overlap: float

    @property
    def key(self) -> str:
        return f"{self.network}_{self.samples}"

    @property
    def mixture(self) -> Tensor:
        """Return `(channels, time)`, with a mean that isn't zero."""
        return 0.3 * reference.mixture(self.samples)[0] + 0.05


CASES = [Track(name, *track) for name in ("demucs", "hdemucs", "htdemucs") for track in TRACKS]


def demix(mixture: Tensor, network: torch.nn.Module, size: int, parts: int) -> Tensor:
    """Separate a whole track as Music-Source-Separation-Training does, a segment at a time.

    Written down from what its program computes, on whole arrays. Shape: `(channels, time)` to
    `(stems, channels, time)`.
    """
    hop, fade = size // parts, size // 10
    border = size - hop
    length = mixture.shape[-1]
    mirrored = length > 2 * border
    if mirrored:
        mixture = torch.nn.functional.pad(mixture[None], (border, border), mode="reflect")[0]
    total = mixture.shape[-1]
    result, counter = torch.zeros(1), torch.zeros(total)
    for start in range(0, total, hop):
        part = mixture[:, start : start + size]
        samples = part.shape[-1]
        mode = "reflect" if samples > size // 2 else "constant"
        part = torch.nn.functional.pad(part[None], (0, size - samples), mode=mode)
        window = torch.ones(size)
        if start > 0:
            window[:fade] = torch.linspace(0, 1, fade)
        if start == 0 or start + hop < total:
            window[size - fade :] = torch.linspace(1, 0, fade)
        estimate = network(part)[0]
        if start == 0:
            result = torch.zeros(*estimate.shape[:-1], total)
        result[..., start : start + samples] += (estimate * window)[..., :samples]
        counter[start : start + samples] += window[:samples]
    result = result / counter
    return result[..., border : border + length] if mirrored else result


def demix_flat(mixture: Tensor, network: torch.nn.Module, size: int, parts: int) -> Tensor:
    """Separate a whole track as that program does with Demucs; shapes as in `demix`."""
    total = mixture.shape[-1]
    padded = torch.nn.functional.pad(mixture, (0, size))
    starts = range(0, total, size // parts)
    pieces = [(start, network(padded[None, :, start : start + size])[0]) for start in starts]
    result = torch.zeros(*pieces[0][1].shape[:-1], total + size)
    counter = torch.zeros(total + size)
    for start, estimate in pieces:
        result[..., start : start + size] += estimate
        counter[start : start + size] += 1
    return (result / counter)[..., :total]
