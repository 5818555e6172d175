"""MDX-Net models in ONNX files, as Ultimate Vocal Remover uses them, run by onnxruntime.

    mixture -> windows -> STFT, lowest bins -> the file's graph -> inverse -> middles of windows

The graph is a TFC-TDF network (see `separator.networks.tfc_tdf_v2`) for windows of a fixed number
of frames, exported with its weights; a state dict holds the bytes of the file. Half an FFT at
either end of a window, where its frames lack context, is thrown away. A graph is data: one that
refers to other files or to operators of other libraries is refused.

The file doesn't say for which STFT it was made: `separator.checkpoints.mdx_onnx` knows that of the
public files, by their checksums.

Reference: Kim et al., "KUIELab-MDX-Net: a two-stream neural network for music demixing", 2021,
arXiv 2111.12203.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError, ModelError
from separator.networks.layers import hide_prefix
from separator.spectral.masks import as_channels, from_channels
from separator.spectral.stft import STFT


class OnnxGraph(nn.Module):
    """The graph of an ONNX file, whose bytes are the state.

    Args:
        size: bytes of the file.
        shape: channels, bins and frames that the graph must take.

    Raises:
        ModelError: At the first call, if onnxruntime is missing, the bytes are no valid graph,
            or it takes another shape.
    """

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.session: Any = None
        self.graph: Tensor
        self.register_buffer("graph", torch.zeros(size, dtype=torch.uint8))

    def _load_from_state_dict(self, *args: Any) -> None:
        """Load the graph, and end the session with the one before."""
        super()._load_from_state_dict(*args)
        self.session = None

    def forward(self, x: Tensor) -> Tensor:
        """Transform one window, `(1, channels, bins, frames)`."""
        if self.session is None:
            self.session = self.start()
        (given,) = self.session.get_inputs()
        (result,) = self.session.run(None, {given.name: x.float().cpu().numpy()})
        return torch.from_numpy(result).to(x.device)

    def start(self) -> Any:
        """Return a session of onnxruntime that runs the graph."""
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as errors
        except ImportError as error:
            raise ModelError(
                "ONNX models need the package onnxruntime: pip install 'separator[onnx]'."
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        wanted = ["CUDAExecutionProvider"] * self.graph.is_cuda + ["CPUExecutionProvider"]
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        try:
            session = onnxruntime.InferenceSession(
                self.graph.cpu().numpy().tobytes(), options, providers
            )
        except (
            errors.Fail,
            errors.InvalidArgument,
            errors.InvalidGraph,
            errors.InvalidProtobuf,
            errors.NotImplemented,
            errors.RuntimeException,
        ) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"The ONNX file is damaged or can't be run ({reason}).") from error
        self.check(session)
        return session

    def check(self, session: Any) -> None:
        """Refuse a graph for other spectrograms."""
        shapes = [given.shape for given in session.get_inputs()]
        fits = (
            len(shapes) == 1
            and len(shapes[0]) == 4
            and all(
                size == own or not isinstance(size, int)  # any size is allowed where it has a name
                for size, own in zip(shapes[0][1:], self.shape, strict=True)
            )
        )
        if not fits:
            raise ModelError(
                "The ONNX graph must take windows of "
                f"{' x '.join(map(str, self.shape))} (channels, bins, frames), as the card says; "
                f"it takes {shapes}."
            )


class MdxOnnx(nn.Module):
    """An MDX-Net model in an ONNX file; it can't be trained.

    Args:
        stems: the name of the one stem that the graph separates.
        graph_bytes: size of the ONNX file.
        bins: how many of the lowest bins the graph takes; the estimate is silent above.
        frames: how many frames it takes.
        silent_bins: so many of the lowest bins are silenced before, as in Ultimate Vocal Remover.
        compensate: gain of the estimate.

    Attributes:
        step: samples of the estimate that one window gives.

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, 1, channels, time)`

    Raises:
        ConfigError: There isn't one stem, or the windows are too short for the FFT.
    """

    def __init__(
        self,
        *,
        stems: Sequence[str],
        graph_bytes: int,
        n_fft: int,
        bins: int,
        frames: int = 256,
        hop_length: int = 1024,
        silent_bins: int = 3,
        compensate: float = 1.0,
        sample_rate: int = 44_100,
        channels: int = 2,
    ) -> None:
        super().__init__()
        if len(stems) != 1:
            raise ConfigError(f"The graph of an MDX-Net separates one stem; got {len(stems)}.")
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        self.stft = STFT(n_fft, hop_length)
        self.bins = bins
        self.silent_bins = silent_bins
        self.compensate = compensate
        self.window_samples = hop_length * (frames - 1)
        self.margin = n_fft // 2
        self.step = self.window_samples - 2 * self.margin
        if self.step < 1 or not 1 <= bins <= self.stft.bins:
            raise ConfigError(
                f"MDX-Net needs windows longer than n_fft and at most {self.stft.bins} bins; got "
                f"{self.window_samples} samples ({frames} frames), n_fft {n_fft} and {bins} bins."
            )
        self.core = OnnxGraph(graph_bytes, (2 * channels, bins, frames))
        hide_prefix(self, "core")

    def forward(self, mixture: Tensor, *, stems: Sequence[int] | None = None) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default)."""
        batch, _, length = mixture.shape
        count = -(-length // self.step)
        padding = (self.margin, self.margin + count * self.step - length)
        windows = F.pad(mixture.float(), padding).unfold(-1, self.window_samples, self.step)
        spectrogram = self.stft(windows.transpose(1, 2).flatten(0, 1))
        features = as_channels(spectrogram[:, :, : self.bins])
        features[:, :, : self.silent_bins] = 0
        parts = torch.cat([self.core(window) for window in features.split(1)])
        parts = F.pad(parts, (0, 0, 0, self.stft.bins - self.bins))
        signals = self.stft.inverse(from_channels(parts, self.channels), self.window_samples)
        middles = signals[..., self.margin : -self.margin].unflatten(0, (batch, count))
        estimates: Tensor = middles.movedim(1, -2).flatten(-2)[..., :length] * self.compensate
        return estimates if stems is None else estimates[:, list(stems)]
