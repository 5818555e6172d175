"""KUIELab's MDX-Net: spectrogram networks and a waveform network, blended.

    mixture -+-> TFC-TDF v2 of each stem -> mixer of stems and mixture -+-> weighted mean
             +-> Demucs ------------------------------------------------+

The mixer is one matrix, the same for every sample, from all channels of the estimates and of the
mixture to those of the better estimates. Parameter names are those of the authors' mixer, with
the waveform network beside it.

Reference: Kim et al., "KUIELab-MDX-Net: a two-stream neural network for music demixing", 2021,
arXiv 2111.12203.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks import build_network


class Cores(nn.ModuleList):
    """The cores of several networks, as one."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile each; nobody calls the list itself."""
        for core in self:
            core.compile(*args, **kwargs)


class MdxNet(nn.Module):
    """Two streams, on the spectrogram and on the waveform.

    Args:
        stems: names of the outputs.
        separators: the hyper-parameters of each stem's `tfc_tdf_v2`, in the order of the stems.
        waveform: the hyper-parameters of the `demucs` for all stems; None leaves that stream out.
        mixer: refine the estimates of the first stream by a matrix. It needs all of them, so
            that choosing stems saves nothing there.
        blend: the share of the first stream in each stem, between 0 and 1; the authors take 0.5
            for bass and drums, 0.7 for others and 0.9 for vocals.

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, stems, channels, time)`

    Raises:
        ConfigError: There isn't one separator and one share per stem, a share lies outside
            [0, 1], or a stream has a hyper-parameter that its network doesn't know.
    """

    def __init__(
        self,
        *,
        stems: Sequence[str],
        separators: Sequence[Mapping[str, Any]],
        waveform: Mapping[str, Any] | None = None,
        mixer: bool = True,
        blend: Sequence[float] | None = None,
        sample_rate: int = 44_100,
        channels: int = 2,
    ) -> None:
        super().__init__()
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        count = len(self.stems)
        if len(separators) != count:
            raise ConfigError(
                f"MDX-Net needs one entry of 'separators' per stem, {count}; got {len(separators)}."
            )
        shares = [0.5 if waveform is not None else 1.0] * count if blend is None else list(blend)
        if len(shares) != count or not all(0 <= share <= 1 for share in shares):
            raise ConfigError(
                f"'blend' needs one share in [0, 1] for each of {count} stems; got {shares}."
            )
        if waveform is None and min(shares) < 1:
            raise ConfigError("Without 'waveform' there is nothing to blend; leave 'blend' out.")
        self.blend = shares
        signal = {"sample_rate": sample_rate, "channels": channels}
        self.separators = nn.ModuleDict(
            {
                stem: stream("tfc_tdf_v2", {"stems": [stem], **signal}, parameters)
                for stem, parameters in zip(self.stems, separators, strict=True)
            }
        )
        self.mixing_layer = None
        if mixer:
            self.mixing_layer = nn.Linear((count + 1) * channels, count * channels, bias=False)
            nn.init.eye_(self.mixing_layer.weight)  # at first the estimates pass unchanged
        self.waveform = None
        if waveform is not None:
            self.waveform = stream("demucs", {"stems": self.stems, **signal}, waveform)

    @property
    def core(self) -> Cores:
        """The cores of all networks; the mixer's few products stay in float32."""
        networks = [*self.separators.values(), self.waveform]
        return Cores(n.get_submodule("core") for n in networks if n is not None)

    def forward(self, mixture: Tensor, *, stems: Sequence[int] | None = None) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default)."""
        chosen = list(range(len(self.stems)) if stems is None else stems)
        estimates = self.from_spectrogram(mixture, chosen)
        if self.waveform is None:
            return estimates
        share = torch.tensor([self.blend[stem] for stem in chosen], device=mixture.device)
        blended: Tensor = self.waveform(mixture, stems=chosen).lerp(estimates, share[:, None, None])
        return blended

    def from_spectrogram(self, mixture: Tensor, chosen: Sequence[int]) -> Tensor:
        """Return the estimates of the first stream, mixed."""
        networks = list(self.separators.values())
        if self.mixing_layer is None:
            return torch.cat([networks[stem](mixture) for stem in chosen], dim=1)
        parts = [network(mixture).flatten(1, 2) for network in networks]
        parts.append(mixture.float())
        weight = self.mixing_layer.weight.unflatten(0, (-1, self.channels))[list(chosen)]
        mixed = weight.flatten(0, 1) @ torch.cat(parts, dim=1)
        estimates: Tensor = mixed.unflatten(1, (-1, self.channels))
        return estimates


def stream(name: str, fixed: Mapping[str, Any], parameters: Mapping[str, Any]) -> nn.Module:
    """Build the network of a stream from what all streams share and its own hyper-parameters.

    Raises:
        ConfigError: A hyper-parameter is given for one stream that all of them share.
    """
    if taken := fixed.keys() & parameters.keys():
        raise ConfigError(
            f"The streams of MDX-Net share {', '.join(fixed)}; leave {', '.join(sorted(taken))} "
            f"out of the hyper-parameters of '{name}'."
        )
    return build_network(name, **fixed, **parameters)
