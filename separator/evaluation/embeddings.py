"""The distance of embeddings: what a network that knows music makes of a stem and its estimate.

The network is the user's own; nothing is downloaded. What listening tests say about its use:

- Bereuter et al. (2025, arXiv 2507.11427) asked listeners for the degradation of separated singing
  voices. Mean squared distances of embeddings agreed better with them than SDR and its kin: of
  Music2Latent's for separators that mask, of MERT's twelfth layer for generative ones, on a par
  with the multi-resolution STFT distance. MERT's served both kinds most evenly.
- Bereuter and Sontacchi (2026, arXiv 2604.20270) found the same of MERT on two data sets, for all
  stems and kinds of separators they had.
- Jaffe and Burgoyne (2025, arXiv 2507.06917), with some 30 ratings per track of MUSDB18, found SDR
  the best for vocals and SI-SAR for drums and bass; embeddings, compared by their distributions
  (Frechet distance of CLAP's and others'), helped with drums and bass, and with vocals not at all.

So report it beside SDR, for stems of generative separators above all, and not in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from separator.errors import ModelError
from separator.evaluation.checks import check_pair, without_silent
from separator.words import one_line

_SEGMENT = 30.0  # seconds that are embedded at once, which bounds the memory


@dataclass(frozen=True)
class Embedding:
    """A network that turns sound into vectors.

    Args:
        name: as it stands in tables, such as "MERT-L12"
        function: `(1, time)`, float32 -> `(1, ...)`; mono
        sample_rate: Hz that the function expects: 24000 for MERT, 44100 for Music2Latent
    """

    name: str
    function: Callable[[Tensor], Tensor]
    sample_rate: int


def load_embedding(
    path: str | Path, *, name: str, sample_rate: int, network: nn.Module | None = None
) -> Embedding:
    """Read an embedding from a file.

    Args:
        path: a TorchScript archive; with a `network`, its weights as safetensors
        name: as it stands in tables
        sample_rate: Hz that the network expects
        network: the module that the weights belong to

    Raises:
        ModelError: The file is missing, isn't of that kind or doesn't fit the network.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no file {path}; give the path of an embedding's weights.")
    module = _script(path) if network is None else _with_weights(network, path)
    return Embedding(name, module.eval(), sample_rate)


def embedding_distance(
    references: Tensor, estimates: Tensor, embedding: Embedding, sample_rate: int = 44100
) -> Tensor:
    """Return the mean squared distance of the embeddings of references and estimates.

    Channels are averaged; songs are embedded in equal parts of about 30 s.

    Shape:
        references, estimates: `(stems, channels, time)`
        result: `(stems,)` in float64, 0 for a perfect estimate; NaN for a silent reference

    Raises:
        AudioError: For shapes that differ or samples that are not finite

    Reference: Bereuter et al., "Towards reliable objective evaluation metrics for generative
    singing voice separation models", 2025, arXiv 2507.11427.

    >>> powers = Embedding("powers", lambda x: x.unflatten(-1, (-1, 100)).square().mean(-1), 44100)
    >>> s = torch.ones(1, 2, 44100)
    >>> round(embedding_distance(s, 2 * s, powers).item(), 3)
    9.0
    """
    check_pair(references, estimates)
    distances = [
        _distance(_mono(x, sample_rate, embedding), _mono(y, sample_rate, embedding), embedding)
        for x, y in zip(references.detach(), estimates.detach(), strict=True)
    ]
    return without_silent(torch.stack(distances).to(references.device), references)


def _distance(reference: Tensor, estimate: Tensor, embedding: Embedding) -> Tensor:
    """Compare two signals `(time,)`."""
    parts = max(1, round(len(reference) / (_SEGMENT * embedding.sample_rate)))
    pairs = zip(reference.tensor_split(parts), estimate.tensor_split(parts), strict=True)
    with torch.inference_mode():
        squares = [
            (embedding.function(x[None]) - embedding.function(y[None])).double().square()
            for x, y in pairs
        ]
    return torch.cat([x.flatten() for x in squares]).mean()


def _mono(signal: Tensor, sample_rate: int, embedding: Embedding) -> Tensor:
    import soxr

    mono = signal.float().mean(0)
    if sample_rate == embedding.sample_rate:
        return mono
    samples = soxr.resample(mono.cpu().numpy(), sample_rate, embedding.sample_rate, quality="VHQ")
    return torch.from_numpy(samples).to(signal.device)


def _script(path: Path) -> nn.Module:
    try:
        module: nn.Module = torch.jit.load(path, map_location="cpu")
    except RuntimeError as error:
        raise ModelError(
            f"{path} isn't a TorchScript archive; save the network by torch.jit.save, or give the "
            "network that its weights belong to."
        ) from error
    return module


def _with_weights(network: nn.Module, path: Path) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        reason = one_line(error)
        raise ModelError(
            f"The weights in {path} don't fit {type(network).__name__}: {reason}"
        ) from error
    return network
