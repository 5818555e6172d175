"""Blocks that more than one network uses: normalisation, rotary attention, feed-forward.

Parameter names follow the public RoFormer checkpoints, so the containers (`net`, `to_out`) hold
the weights where those files expect them, while `forward` is free to compute faster. Inference
takes many pieces through the same block: what doesn't depend on the piece is prepared once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from separator.networks.positions import PolarEmbedding, Positions, RotaryEmbedding

#: On a processor, how many features are transformed and how many scores are held at a time: few
#: enough to stay in its cache, and enough to keep the matrix products efficient.
CACHED_FEATURES = 2**19
CACHED_SCORES = 2**20
#: Up to this length plain attention is faster than the fused kernel in float32, too.
SHORT_SEQUENCE = 256

Layer = Callable[[Tensor], Tensor]


class RMSNorm(nn.Module):
    """Vectors scaled to the norm sqrt(dim), then each feature by a learned gain.

    Reference: Zhang and Sennrich, "Root mean square layer normalization", 2019, arXiv 1910.07467.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = sqrt(dim)
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize `(..., dim)` over its last dimension."""
        return unit(x) * (self.gamma * self.scale)

    def then(self, linear: nn.Linear, *, gelu: bool = False) -> Layer:
        """Return `linear(norm(x))`, with GELU after it on request, as a function of `unit(x)`.

        The gain joins the weight: that is smaller than the features, which save a pass.
        """
        return affine(linear.weight * (self.gamma * self.scale), linear.bias, gelu=gelu)


def affine(weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Layer:
    """Return the function `x -> x @ weight.T + bias`, with GELU after it on request.

    In bfloat16 on a processor oneDNN wants the weight in an order of its own: it is brought there
    here, not at every call, and GELU is applied to the results before they leave the registers.
    """
    if _packs(weight):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        after = "gelu" if gelu else "none"
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, after, [], "none")
    if gelu:
        return lambda x: F.gelu(F.linear(x, weight, bias))
    return lambda x: F.linear(x, weight, bias)


def _packs(weight: Tensor) -> bool:
    return (
        weight.dtype == torch.bfloat16
        and weight.device.type == "cpu"
        and not torch.is_grad_enabled()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def unit(x: Tensor) -> Tensor:
    """Return `x / |x|` over the last dimension, and zero for zero."""
    if torch.is_grad_enabled():
        units: Tensor = _Unit.apply(x)  # type: ignore[no-untyped-call]
        return units
    return x / _norm(x)


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.clamp_min(1e-12)


class _Unit(torch.autograd.Function):
    """Function `u = x / |x|`; its gradient is `(g - u <g, u>) / |x|`, in a third of the passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = _norm(x)
        units = x / norm
        ctx.save_for_backward(units, norm)
        return units

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        units, norm = ctx.saved_tensors
        along = (gradient * units).sum(-1, keepdim=True)
        return torch.addcmul(gradient, units, along, value=-1).div_(norm)


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """Return `softmax(query @ key.T) @ value` over `(sequences, heads, length, dim_head)`.

    Queries and keys may have another number of features than the values.
    """
    if not _plain_is_better(query, value):
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=1.0)
    at_once = max(1, CACHED_SCORES // query.shape[2] ** 2)
    pieces = [x.flatten(0, 1).split(at_once) for x in (query, key, value)]
    # The softmax of short rows is three times as fast in float32.
    exact = torch.float32 if query.shape[2] <= SHORT_SEQUENCE else None
    out = []
    for q, k, v in zip(*pieces, strict=True):
        weights = torch.softmax(q @ k.mT, dim=-1, dtype=exact).to(v.dtype)
        out.append(F.dropout(weights, dropout) @ v)
    return torch.cat(out).view(*query.shape[:-1], value.shape[-1])


def _plain_is_better(query: Tensor, value: Tensor) -> bool:
    """Tell where two batched products beat the fused kernel, which saves memory elsewhere.

    On processors that gains nothing from bfloat16, its gradient there takes several times as
    long, short sequences don't pay for its blocks, and it wants as many features in the values.
    """
    if query.device.type != "cpu":
        return False
    short = query.shape[2] <= SHORT_SEQUENCE and not torch.is_grad_enabled()
    uneven = query.shape[-1] != value.shape[-1]
    return short or uneven or query.dtype == torch.bfloat16


class Attention(nn.Module):
    """Attention along a sequence with rotary or polar positions and a learned gate a head."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        dim_head: int,
        dropout: float = 0.0,
        positions: Positions = "rotary",
    ) -> None:
        super().__init__()
        inner = heads * dim_head
        self.heads = heads
        self.dropout = dropout
        self.polar = positions == "polar"
        if self.polar:
            self.pope_embed = PolarEmbedding(heads, dim_head)
        else:
            self.rotary_embed = RotaryEmbedding(dim_head)
        self.norm = RMSNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.to_gates = nn.Linear(dim, heads)
        self.to_out = nn.Sequential(nn.Linear(inner, dim, bias=False), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (without the residual) of `(sequences, length, dim)`."""
        return self.prepare(x.shape[1])(x)

    def prepare(self, length: int) -> Layer:
        """Return `forward` for sequences of one length and weights that stay as they are."""
        dtype = self.to_qkv.weight.dtype
        place = (self.pope_embed if self.polar else self.rotary_embed).prepare(length)
        to_qkv, to_gates = self.norm.then(self.to_qkv), self.norm.then(self.to_gates)
        to_out = affine(cast(nn.Linear, self.to_out[0]).weight, None)

        def update(x: Tensor) -> Tensor:
            units = unit(x.to(dtype))
            qkv = to_qkv(units).unflatten(-1, (3, self.heads, -1))
            qkv = qkv.permute(2, 0, 3, 1, 4)  # (3, sequences, heads, length, dim_head)
            turned, value = qkv.split((2, 1))  # one gradient, where two indices would have two
            query, key = place(turned)
            out = attend(query, key, value[0], self.dropout if self.training else 0.0)
            gates = to_gates(units).sigmoid().unsqueeze(-1)
            out = out.transpose(1, 2) * gates  # (sequences, length, heads, dim_head)
            return cast(Tensor, self.to_out[1](to_out(out.flatten(2))))

        return update


class FeedForward(nn.Module):
    """Perceptron of two layers for every token."""

    def __init__(self, dim: int, *, expansion: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(
            RMSNorm(dim),
            nn.Linear(dim, dim * expansion),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(dim * expansion, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (without the residual) of `(..., dim)`."""
        return self.prepare()(x)

    def prepare(self) -> Layer:
        """Return `forward`, for weights that stay as they are."""
        norm, inner, _, dropout, outer, last = self.net
        inner, outer = cast(nn.Linear, inner), cast(nn.Linear, outer)
        widen = cast(RMSNorm, norm).then(inner, gelu=True)
        narrow = affine(outer.weight, outer.bias)
        return lambda x: last(narrow(dropout(widen(unit(x.to(inner.weight.dtype))))))


class Transformer(nn.Module):
    """Pre-normalised attention and feed-forward blocks over independent sequences."""

    def __init__(
        self,
        dim: int,
        *,
        depth: int = 1,
        heads: int = 8,
        dim_head: int = 64,
        ff_expansion: int = 4,
        attention_dropout: float = 0.0,
        ff_dropout: float = 0.0,
        norm_output: bool = False,
        positions: Positions = "rotary",
    ) -> None:
        super().__init__()
        attention: dict[str, Any] = {"heads": heads, "dim_head": dim_head}
        attention |= {"dropout": attention_dropout, "positions": positions}
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    Attention(dim, **attention),
                    FeedForward(dim, expansion=ff_expansion, dropout=ff_dropout),
                ]
            )
            for _ in range(depth)
        )
        self.norm = RMSNorm(dim) if norm_output else None

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(sequences, length, dim)`."""
        return by_sequences(self.prepare(x), x)

    def prepare(self, x: Tensor) -> Layer:
        """Return the function that transforms `x` or a part of its sequences."""
        updates: list[Layer] = []
        for block in self.layers:
            attention, feed_forward = cast(tuple[Attention, FeedForward], block.children())
            if torch.is_grad_enabled():  # training may have wrapped the modules
                updates += [attention, feed_forward]
            else:
                updates += [attention.prepare(x.shape[1]), feed_forward.prepare()]

        def transform(x: Tensor) -> Tensor:
            for update in updates:
                x = x + update(x)
            return x if self.norm is None else cast(Tensor, self.norm(x))

        return transform


class Heads(nn.Conv2d):
    """The last convolution of a network, which can compute some of its output channels only."""

    def forward(self, x: Tensor, outputs: Sequence[int] | None = None) -> Tensor:
        """Return the output channels with the given indices (all by default)."""
        if outputs is None:
            return super().forward(x)
        chosen = list(outputs)
        bias = None if self.bias is None else self.bias[chosen]
        return F.conv2d(x, self.weight[chosen], bias, self.stride, self.padding)


def by_sequences(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of independent sequences to as many at a time as stay in the cache.

    On a processor memory is the bottleneck of all but the matrix products, so inference takes
    `(sequences, length, dim)` in pieces. With gradients, or on an accelerator, it is one call.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return function(x)
    out = torch.empty_like(x)
    sequences = max(1, CACHED_FEATURES // x[0].numel())
    for source, result in zip(x.split(sequences), out.split(sequences), strict=True):
        result.copy_(function(source.contiguous()))
    return out


def hide_prefix(module: nn.Module, inner: str) -> None:
    """Leave the attribute `inner` out of the state-dict keys of `module`.

    A network keeps everything with weights in `core`, the files of its authors know no `core.`.
    """
    others = tuple(f"{name}." for name, _ in module.named_children() if name != inner)
    module.register_state_dict_post_hook(partial(_without_prefix, inner))
    module.register_load_state_dict_pre_hook(partial(_with_prefix, inner, others))


def _without_prefix(
    inner: str, _: nn.Module, state: dict[str, Any], prefix: str, *_args: Any
) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}{inner}.")]:
        state[prefix + key.removeprefix(f"{prefix}{inner}.")] = state.pop(key)


def _with_prefix(
    inner: str,
    others: tuple[str, ...],
    _: nn.Module,
    state: dict[str, Any],
    prefix: str,
    *_args: Any,
) -> None:
    own = [key.removeprefix(prefix) for key in state if key.startswith(prefix)]
    for key in [key for key in own if not key.startswith(others)]:
        state[f"{prefix}{inner}.{key}"] = state.pop(prefix + key)
