"""What a recipe costs: shapes, parameters, operations and memory, without computing anything.

The network runs on fake tensors, which have shapes and no values, so that the largest recipe is
analysed on the smallest computer. Two kinds of operations don't run there, or only step by step:
the inverse STFT, and recurrent layers. Stand-ins of the same shapes and matrix products take their
place. Then, if asked, some real steps tell the speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from separator.errors import ModelError
from separator.stream.runner import is_out_of_memory
from separator.training.building import (
    bare_network,
    checkpoint_activations,
    compile_core,
    initial_network,
)
from separator.training.hardware import training_device
from separator.training.lora import add_lora
from separator.training.optimizers import build_optimizer, is_matrix
from separator.training.recipe import Recipe
from separator.training.shortage import what_to_change

_SINGLE = 4  # bytes of a float32


@dataclass(frozen=True)
class Costs:
    """Costs of a recipe.

    Attributes:
        mixture, estimates: shapes of a batch.
        parameters: number in the network; `trained` counts those that change.
        macs: multiplications with addition per second of music, of a forward pass; matrix products
            and convolutions are counted, the STFT isn't.
        weights: bytes of weights, their gradients, their averages and the optimizer's state.
        activations: bytes that a forward pass keeps for the backward pass of one batch.
    """

    mixture: tuple[int, ...]
    estimates: tuple[int, ...]
    parameters: int
    trained: int
    macs: float
    weights: int
    activations: int

    @property
    def memory(self) -> int:
        """Bytes of everything that is kept; what kernels need besides isn't foreseen."""
        return self.weights + self.activations


def analyse(recipe: Recipe) -> Costs:
    """Run a recipe's network without values.

    Raises:
        ModelError: There is no network of this name.
        ConfigError: A hyper-parameter is unknown, missing or has an impossible value.
    """
    with FakeTensorMode():
        return _analyse(recipe)


def _analyse(recipe: Recipe) -> Costs:
    network = bare_network(recipe)
    samples = max(1, round(recipe.data.segment * recipe.sample_rate))
    mixture = torch.zeros(recipe.data.batch, recipe.inputs * recipe.channels, samples)
    total = sum(parameter.numel() for parameter in network.parameters())
    if recipe.lora is not None:
        add_lora(network, recipe.lora)
    changing = sum(p.numel() for p in network.parameters() if p.requires_grad)
    kept = _Kept()
    if recipe.checkpointing:
        for block in checkpoint_activations(network):
            block.register_forward_pre_hook(kept.note_inputs)
    counter = FlopCounterMode(display=False)
    with StandIns(), _autocast(recipe.precision), kept.counted(), counter:
        estimates = network(mixture)
    seconds = recipe.data.batch * samples / recipe.sample_rate
    weights = _SINGLE * (total * (2 if recipe.ema else 1) + changing)
    return Costs(
        mixture=tuple(mixture.shape),
        estimates=tuple(estimates.shape),
        parameters=total,
        trained=changing,
        macs=counter.get_total_flops() / 2 / seconds,
        weights=weights + _optimizer_bytes(network, recipe, changing),
        activations=kept.bytes,
    )


def _optimizer_bytes(network: nn.Module, recipe: Recipe, changing: int) -> int:
    """Return the size of the running means: two for Adam, one for Muon and RMSprop."""
    if recipe.optimizer.name == "rmsprop":
        return _SINGLE * changing * (2 if recipe.optimizer.momentum else 1)
    if recipe.optimizer.name != "muon":
        return _SINGLE * changing * 2
    numbers = 0
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                numbers += parameter.numel() * (1 if is_matrix(module, parameter) else 2)
    return _SINGLE * numbers


def _autocast(precision: str) -> torch.autocast:
    """Return a context in which sizes are as in Lightning's.

    Float16 stands for both half types: for bfloat16 processors have kernels of their own.
    """
    return torch.autocast("cpu", torch.float16, enabled=precision != "float32")


class _Kept:
    """Count of the bytes that autograd keeps, each storage once, parameters not at all."""

    def __init__(self) -> None:
        self._storages: dict[int, Any] = {}

    @property
    def bytes(self) -> int:
        """The sum so far."""
        return sum(storage.nbytes() for storage in self._storages.values())

    def note(self, tensor: Tensor) -> Tensor:
        """Count a tensor."""
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            self._storages[storage._cdata] = storage  # kept, so that its address stays its own
        return tensor

    def note_inputs(self, _block: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Count what a block keeps that computes everything else again."""
        for value in inputs:
            if isinstance(value, Tensor):
                self.note(value)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is kept by what runs inside."""
        with torch.autograd.graph.saved_tensors_hooks(self.note, lambda tensor: tensor):
            yield


class StandIns(TorchFunctionMode):
    """Operations of the same shape and cost in place of what fake tensors can't do."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or its stand-in."""
        replacement = _STAND_INS.get(getattr(func, "__name__", ""))
        if replacement is not None:
            return replacement(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _istft(
    spectrogram: Tensor, n_fft: int, *_args: Any, length: int | None = None, **_kw: Any
) -> Tensor:
    frames = torch.fft.irfft(spectrogram, n=n_fft, dim=-2)  # (batch, n_fft, frames)
    signal = frames.flatten(-2)
    wanted = signal.shape[-1] if length is None else length
    return F.pad(signal, (0, max(0, wanted - signal.shape[-1])))[..., :wanted]


def _recurrent(gates: int) -> Callable[..., Any]:
    def run(
        x: Tensor,
        hidden: Any,
        weights: list[Tensor],
        bias: bool,
        layers: int,
        _dropout: float,
        _training: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        """Multiply by all weights of all layers; `(batch, length, features)` either way round."""
        states = hidden if isinstance(hidden, Tensor) else hidden[0]
        size = states.shape[-1]
        per_direction = len(weights) // (layers * (2 if bidirectional else 1))
        for layer in range(layers):
            outputs = []
            for direction in range(2 if bidirectional else 1):
                first = (layer * (2 if bidirectional else 1) + direction) * per_direction
                into, again = weights[first], weights[first + 1]
                sums = x @ into.t()
                recurred = sums[..., :size] @ again.t()
                outputs.append((sums + recurred)[..., :size].tanh())
            x = torch.cat(outputs, dim=-1)
        return (x, *(hidden if gates == 4 else (hidden,)))

    return run


_STAND_INS: dict[str, Callable[..., Any]] = {
    "istft": _istft,
    "lstm": _recurrent(4),
    "gru": _recurrent(3),
}


def measure_speed(recipe: Recipe, *, seconds: float = 3.0) -> float:
    """Return how many updates a second one process makes, of noise and without loading data.

    Steps are made for about so many seconds, at least one; the first one isn't counted if there
    are others.

    Raises:
        ModelError: Memory is too small.
        ConfigError: The device isn't there, or the core is to be compiled and there is no
            compiler for it.
    """
    device = training_device(recipe.hardware)
    try:
        return _measure_speed(recipe, device, seconds)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(what_to_change(recipe, str(device))) from error


def _measure_speed(recipe: Recipe, device: torch.device, seconds: float) -> float:
    network = initial_network(recipe, fresh=False).to(device)
    if recipe.checkpointing:
        checkpoint_activations(network)
    if recipe.compile:
        compile_core(network)
    fused = recipe.precision == "float32"
    optimizer = build_optimizer(recipe.optimizer, network.modules(), fused=fused)
    samples = max(1, round(recipe.data.segment * recipe.sample_rate))
    shape = (recipe.data.batch, len(recipe.stems), recipe.channels, samples)
    targets = 0.1 * torch.randn(shape, device=device)
    dtype = torch.bfloat16 if recipe.precision == "float32" else getattr(torch, recipe.precision)
    ends = [time.perf_counter()]
    while len(ends) == 1 or ends[-1] - ends[0] < seconds:
        for _ in range(recipe.accumulate):
            mixture = targets.sum(1)
            with torch.autocast(device.type, dtype, enabled=recipe.precision != "float32"):
                estimates = network(mixture.repeat(1, recipe.inputs, 1))
            terms = recipe.loss.terms(estimates.float(), targets, mixture, recipe.sample_rate)
            torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ends.append(time.perf_counter())
    counted = ends[1:] if len(ends) > 2 else ends
    return (len(counted) - 1) / (counted[-1] - counted[0])
