"""Decode weights that DiffQ has quantised, as in Demucs' `mdx_q` and `mdx_extra_q`.

    {"quantized": [...], "float16": [...], "others": [...], "meta": {"init_kwargs": ...}}

Parameters have no names there, only an order: that of the network. Large ones are quantised, the
small ones stand in `others`, or in `float16` if that was asked for. A quantised one is

    (packed levels of 1 bit, of 2 bits, ... or None), (lowest, highest), packed depths

Its values are cut into groups with a depth of their own: a value is one of 2^depth levels evenly
spaced from the lowest to the highest. Numbers are packed bit by bit: a plane holds one bit of many.

Reference: Défossez, Adi and Synnaeve, "Differentiable model compression via pseudo quantization
noise", 2021, arXiv 2104.09987.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from separator.errors import ModelError

#: Values of the quantiser's options that a file leaves out.
_DEFAULTS: dict[str, Any] = {
    "group_size": 1,
    "min_bits": 2,
    "min_size": 0.01,
    "float16": False,
    "exclude": (),
}


def is_quantized(state: Mapping[str, Any]) -> bool:
    """Tell whether a Demucs file's state has been quantised."""
    return "quantized" in state and "others" in state


def dequantize(state: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Return a quantised state as plain parameters, float32.

    Args:
        state: as a Demucs file holds it.
        shapes: shapes of all parameters, by name, in the network's order.

    Raises:
        ModelError: The state doesn't fit the network, or has options that no published file has.
    """
    try:
        return _dequantize(state, shapes)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError, StopIteration) as error:
        raise ModelError(
            f"The quantised weights are damaged or don't fit the network "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]})."
        ) from error


def _dequantize(state: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    meta = state["meta"]
    options = _DEFAULTS | dict(meta.get("init_kwargs", {}))
    if not meta.get("packed", False) or options["exclude"] or options["group_size"] < 1:
        raise ModelError("Only packed DiffQ states of groups, without exceptions, can be read.")
    least = options["min_size"] * 2**20 // 4  # from megabytes of float32
    quantized, plain = iter(state["quantized"]), iter(_plain(state, options["float16"]))
    parameters = {}
    for name, shape in shapes.items():
        if shape.numel() > least:
            flat = _values(next(quantized), shape.numel(), options)
        else:
            flat = next(plain).float()
        parameters[name] = flat.reshape(shape)
    if next(quantized, None) is not None or next(plain, None) is not None:
        raise ValueError("parameters are left over")
    return parameters


def _plain(state: Mapping[str, Any], float16: bool) -> Iterator[Tensor]:
    yield from state["float16" if float16 else "others"]


def _values(item: Sequence[Any], count: int, options: Mapping[str, Any]) -> Tensor:
    """Decode one parameter. Shape: `(count,)`, float32."""
    planes, (low, high), packed_depths = item
    group = options["group_size"]
    depths = unpack(packed_depths, count // group) + int(options["min_bits"])
    unit = torch.empty(len(depths), group)  # each value's place, 0 for the lowest to 1
    for depth in depths.unique().tolist():
        chosen = depths == depth
        levels = unpack(planes[depth - 1], int(chosen.sum()) * group)
        unit[chosen] = levels.float().view(-1, group) / (2**depth - 1)
    values: Tensor = unit * (high - low) + low
    return values.flatten()


def unpack(planes: Tensor, count: int) -> Tensor:
    """Put the bits of `count` whole numbers together.

    Bit i of a word in plane j is bit j of a number; the numbers run over the words of a plane
    first, then over i, then over blocks.

    Shape: `(blocks, planes, words)`, or without blocks; to `(count,)`, int64.

    Raises:
        ValueError: Fewer numbers are there.

    >>> unpack(torch.tensor([[1, 3], [2, 0]], dtype=torch.uint8), 4)
    tensor([1, 1, 2, 1])
    """
    blocks = planes if planes.ndim == 3 else planes[None]
    places = torch.arange(torch.iinfo(planes.dtype).bits).unsqueeze(-1)
    numbers = torch.zeros(len(blocks), len(places), blocks.shape[-1], dtype=torch.int64)
    for bit, plane in enumerate(blocks.unbind(1)):  # one by one: all at once would take gigabytes
        numbers |= ((plane.long().unsqueeze(1) >> places) & 1) << bit
    if numbers.numel() < count:
        raise ValueError(f"{numbers.numel()} numbers are packed, {count} are needed")
    return numbers.flatten()[:count]
