"""Change the sample rate of signals by a ratio of whole numbers.

    x, zeros in between ──> low-pass ──> every `down`-th sample

computed as one convolution that skips both the zeros and the samples that are thrown away. The
low-pass is a sinc under a Kaiser window, in units of samples of the lower rate:

    h(t) = cutoff sinc(cutoff t) kaiser(t / width),   |t| <= width
"""

from __future__ import annotations

from math import floor, gcd
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Filter(NamedTuple):
    """A low-pass: cutoff relative to the lower Nyquist frequency, half width, shape."""

    cutoff: float
    width: float
    beta: float


Quality = Literal["polyphase", "sinc"]
#: That of scipy's `resample_poly`, and that of libsamplerate's "fastest" converter, fitted to its
#: impulse response (to 2e-6 of its norm).
FILTERS: dict[Quality, Filter] = {
    "polyphase": Filter(1.0, 10.0, 5.0),
    "sinc": Filter(0.831471, 19.23289, 10.07839),
}


class Resampler(nn.Module):
    """Resampling by `up / down` without delay; there is silence before and behind the signal.

    Shape:
        - signal: `(..., time)`
        - result: `(..., ceil(time * up / down))`

    >>> tone = torch.sin(torch.arange(300) / 10)
    >>> again = Resampler(2, 1)(tone)
    >>> torch.allclose(again[::2][50:250], tone[50:250], atol=0.01)
    True
    """

    def __init__(self, up: int, down: int, quality: Quality = "polyphase") -> None:
        super().__init__()
        common = gcd(up, down)
        self.up, self.down = up // common, down // common
        cutoff, width, beta = FILTERS[quality]
        stride = max(
            self.up, self.down
        )  # steps of the common multiple per sample of the lower rate
        reach = floor(width * stride)  # steps
        steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
        inside = (1 - (steps / (width * stride)).square()).clamp_min(0).sqrt()
        taps = torch.sinc(cutoff * steps / stride) * torch.special.i0(beta * inside)
        taps *= self.up / taps.sum()
        # Output i * up + phase is the sum over j of x[i * down + j] h[phase * down - j * up].
        self.first = -(reach // self.up)
        last = ((self.up - 1) * self.down + reach) // self.up
        j = torch.arange(self.first, last + 1)
        lag = torch.arange(self.up)[:, None] * self.down - j * self.up
        known = lag.abs() <= reach
        kernel = taps[lag.clamp(-reach, reach) + reach] * known
        self.kernel: Tensor
        self.register_buffer("kernel", kernel.float().unsqueeze(1), persistent=False)

    def forward(self, signal: Tensor) -> Tensor:
        """Return the signal at the other rate."""
        if self.up == self.down:
            return signal
        time = signal.shape[-1]
        wanted = -(-time * self.up // self.down)
        steps = -(-wanted // self.up)
        flat = signal.reshape(-1, 1, time)
        behind = (steps - 1) * self.down + self.first + self.kernel.shape[-1] - time
        padded = F.pad(flat, (-self.first, behind))
        phases = F.conv1d(padded, self.kernel.to(padded.dtype), stride=self.down)
        resampled = phases.transpose(1, 2).flatten(1)  # (signals, steps * up)
        return resampled[:, :wanted].reshape(*signal.shape[:-1], wanted)
