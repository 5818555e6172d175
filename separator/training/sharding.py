"""Share the weights of a network among processes, each of which keeps a part of every tensor.

    process 0: W[:half] g[:half] m[:half]     a block gathers its whole weights before it computes,
    process 1: W[half:] g[half:] m[half:]     and lets go of the others' parts afterwards

Weights, gradients, the optimizer's state and the moving average take a share of the memory; a
checkpoint is whole, as every other one. Works on graphics cards, and on processors by way of gloo.

Reference: Zhao et al., "PyTorch FSDP: experiences on scaling fully sharded data parallel", 2023,
arXiv 2304.11277; `torch.distributed.fsdp.fully_shard` is its second edition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from separator.training.building import repeated_blocks


class Sharded(ModelParallelStrategy):
    """Strategy of Lightning for a module that shards itself in `configure_model`.

    In place of Lightning's own reading and writing of checkpoints, which wants every parameter
    under its place in the module: state-dict hooks may name them otherwise.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Let Lightning ask for the optimizer's state to be restored."""
        return True

    def setup_environment(self) -> None:
        """Make all processes one group that shares everything."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the whole weights."""
        assert self.model is not None
        state: dict[str, Any] = whole(self.model.state_dict())
        return state

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return the whole state of an optimizer."""
        state: dict[str, Any] = whole(optimizer.state_dict())
        return state

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; every process reads all of it."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's part of whole weights."""
        assert self.model is not None
        own = self.model.state_dict()
        parts = {key: part_like(v, own.get(key)) for key, v in checkpoint["state_dict"].items()}
        self.model.load_state_dict(parts, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's part of whole optimizer states."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            parts = {
                number: {key: part_like(v, parameters[number]) for key, v in values.items()}
                for number, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": parts})


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Share a network's weights among the processes of a mesh, block by block."""
    for block in called_blocks(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def called_blocks(network: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks that a forward pass calls.

    A block gathers its weights when it is called. Some networks take their blocks apart, and call
    what is inside: those weights are gathered with the network's own.
    """
    blocks = repeated_blocks(network)
    called: set[nn.Module] = set()
    hooks = [block.register_forward_pre_hook(lambda b, _: called.add(b)) for block in blocks]
    training = network.training
    channels: Any = network.channels
    network.eval()(torch.zeros(1, channels, 1, device=next(network.parameters()).device))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return [block for block in blocks if block in called]


@contextmanager
def gathered(network: nn.Module) -> Iterator[None]:
    """Keep the whole weights in every process, for forward passes that the others don't make."""
    shards = [module for module in network.modules() if isinstance(module, FSDPModule)]
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()


def whole(state: Any) -> Any:
    """Return nested containers with every shared tensor put together, on the processor."""
    return mapped(lambda x: x.full_tensor().cpu() if isinstance(x, DTensor) else x, state)


def part_like(value: Any, model: Tensor | None) -> Any:
    """Return this process's part of a tensor, shared as `model` is; other values as they are."""
    if not (isinstance(value, Tensor) and isinstance(model, DTensor)):
        return value
    if value.shape != model.shape:  # a count of steps
        return value
    value = value.to(model.device_mesh.device_type)
    return distribute_tensor(value, model.device_mesh, model.placements)


def mapped(function: Callable[[Any], Any], values: Any) -> Any:
    """Apply a function to all leaves of nested containers."""
    if isinstance(values, dict):
        return type(values)((key, mapped(function, value)) for key, value in values.items())
    if isinstance(values, list | tuple):
        return type(values)(mapped(function, value) for value in values)
    return function(values)
