"""Make a transformer smaller: leave out the heads and hidden units that it can best do without.

    trained model -> masks learnt by gradient -> smaller model -> short fine-tuning

Every attention head and every hidden unit of a feed-forward gets a score. A forward pass uses the
best ones only; the gradient passes through the choice as if it were a sigmoid, so the scores of
units that are left out are learnt, too. Weights stay as they are meanwhile. All layers keep equally
many, so that what remains is an ordinary network with smaller `heads` and `ff_expansion`, which
loads everywhere and is faster without further ado.

Reference: after Li et al., "SepPrune: structured pruning for efficient deep speech separation",
2025, arXiv 2505.12079 (differentiable channel selection, then fine-tuning).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from separator.errors import ConfigError, ModelError
from separator.networks.layers import Attention, FeedForward
from separator.stream.runner import pick_device
from separator.training.building import bare_network, initial_network
from separator.training.callbacks import Report
from separator.training.data.build import build_data
from separator.training.dryrun import analyse
from separator.training.export import write_model
from separator.training.recipe import Recipe
from separator.training.run import Result, check_new, train
from separator.training.validation import plan_of, track_sdr, validation_tracks

_RATE = 0.05  # of Adam for the scores, which are logits
_SHARE = 10  # the masks are learnt in one of so many of the recipe's steps


@dataclass(frozen=True)
class Pruned:
    """Effect of pruning; MACs per second of music, SDR in dB where there is validation."""

    macs: tuple[float, float]
    sdr: tuple[float, float] | None
    result: Result


class Gate(nn.Module):
    """Product of the columns of a weight and the choice of the best units, a parametrization.

    Args:
        weight: `(outputs, units * width)`; the norms of its columns are the first scores.
        units: how many there are; `keep`: how many are chosen.
    """

    def __init__(self, weight: Tensor, units: int, keep: int) -> None:
        super().__init__()
        norms = weight.detach().unflatten(1, (units, -1)).norm(dim=(0, 2))
        self.scores = nn.Parameter((norms - norms.mean()) / norms.std(correction=0).clamp_min(1e-6))
        self.keep = keep

    @property
    def chosen(self) -> Tensor:
        """The numbers of the best units, in order."""
        return self.scores.detach().topk(self.keep).indices.sort().values

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight without the columns of the other units."""
        soft = self.scores.sigmoid()
        hard = torch.zeros_like(soft).index_fill(0, self.chosen, 1.0)
        gate = hard + soft - soft.detach()  # the value of one, the gradient of the other
        return weight * gate.repeat_interleave(weight.shape[1] // len(gate))


def smaller(recipe: Recipe, ratio: float) -> Recipe:
    """Return the recipe of the network that is left when `ratio` of all units go.

    Raises:
        ConfigError: The ratio isn't in (0, 1), the network has no such units, or nothing changes.
    """
    if not 0 < ratio < 1:
        raise ConfigError(f"The ratio to prune is {ratio:g}; allowed is more than 0, less than 1.")
    network = bare_network(recipe)
    parts = [m for m in network.modules() if isinstance(m, Attention | FeedForward)]
    if not parts:
        raise ConfigError(f"'{recipe.network}' has no transformer whose units could be pruned.")
    heads = next(part.heads for part in parts if isinstance(part, Attention))
    expand = next(cast(nn.Linear, p.net[1]) for p in parts if isinstance(p, FeedForward))
    old = {"heads": heads, "ff_expansion": expand.out_features // expand.in_features}
    new = {name: max(1, round(number * (1 - ratio))) for name, number in old.items()}
    if new == old:
        raise ConfigError(
            f"Pruning {ratio:g} of {heads} heads and of feed-forwards {old['ff_expansion']} times "
            "as wide as the network leaves all of them; choose a higher ratio."
        )
    return recipe.model_copy(update={"parameters": {**recipe.parameters, **new}})


def add_gates(network: nn.Module, small: nn.Module) -> dict[str, Gate]:
    """Freeze a network, and give a gate to each layer of which less is left in the small one."""
    network.requires_grad_(False)
    others = dict(small.named_modules())
    gates = {}
    for name, module in list(network.named_modules()):
        other = others.get(name)
        if isinstance(module, Attention) and isinstance(other, Attention):
            layer, units, keep = cast(nn.Linear, module.to_out[0]), module.heads, other.heads
        elif isinstance(module, FeedForward) and isinstance(other, FeedForward):
            layer = cast(nn.Linear, module.net[4])
            units, keep = layer.in_features, cast(nn.Linear, other.net[4]).in_features
        else:
            continue
        gates[name] = Gate(layer.weight, units, keep)
        parametrize.register_parametrization(layer, "weight", gates[name])
        layer.get_parameter("parametrizations.weight.original").requires_grad_(False)
    return gates


def learn_gates(
    network: nn.Module,
    gates: dict[str, Gate],
    recipe: Recipe,
    batches: Iterator[Tensor],
    steps: int,
    report: Callable[[Report], None] | None = None,
) -> None:
    """Train the scores, and nothing else.

    Raises:
        ModelError: The loss isn't finite.
    """
    torch.manual_seed(recipe.seed)
    optimizer = torch.optim.Adam([gate.scores for gate in gates.values()], lr=_RATE)
    device = next(network.parameters()).device
    for step in range(1, steps + 1):
        targets = next(batches).to(device)
        mixture, targets = targets.sum(1), targets[:, : len(recipe.stems)]
        terms = recipe.loss.terms(network(mixture), targets, mixture, recipe.sample_rate)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise ModelError(f"The loss isn't finite at step {step} of choosing units.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if report is not None and step % recipe.log.every == 0:
            report(Report(step, steps, {"loss": loss.item()}))


@torch.no_grad()
def shrink(network: nn.Module, gates: dict[str, Gate], small: nn.Module) -> None:
    """Copy what is left of a gated network into a small one."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    old, new = network.state_dict(), small.state_dict()
    small.load_state_dict({k: old[k] if old[k].shape == v.shape else v for k, v in new.items()})
    before, after = dict(network.named_modules()), dict(small.named_modules())
    for name, gate in gates.items():
        keep = gate.chosen
        one, two = before[name], after[name]
        if isinstance(one, Attention) and isinstance(two, Attention):
            qkv = one.to_qkv.weight.unflatten(0, (3, one.heads, -1))
            two.to_qkv.weight.copy_(qkv[:, keep].flatten(0, 2))
            two.to_gates.weight.copy_(one.to_gates.weight[keep])
            two.to_gates.bias.copy_(one.to_gates.bias[keep])
            out = cast(nn.Linear, one.to_out[0]).weight.unflatten(1, (one.heads, -1))
            cast(nn.Linear, two.to_out[0]).weight.copy_(out[:, keep].flatten(1))
            if one.polar:
                two.pope_embed.bias.copy_(one.pope_embed.bias[keep])
        elif isinstance(one, FeedForward) and isinstance(two, FeedForward):
            expand, contract = (cast(nn.Linear, one.net[i]) for i in (1, 4))
            cast(nn.Linear, two.net[1]).weight.copy_(expand.weight[keep])
            cast(nn.Linear, two.net[1]).bias.copy_(expand.bias[keep])
            cast(nn.Linear, two.net[4]).weight.copy_(contract.weight[:, keep])
            cast(nn.Linear, two.net[4]).bias.copy_(contract.bias)


def prune(
    recipe: Recipe,
    folder: Path,
    ratio: float,
    *,
    until: int | None = None,
    report: Callable[[Report], None] | None = None,
) -> Pruned:
    """Prune the model that a recipe starts from, then train what is left by the recipe.

    A tenth as many steps as the recipe's choose the units. What is left goes into `folder/pruned`
    as a model, from which the run in `folder` starts.

    Raises:
        ConfigError: The recipe starts from no model, or the ratio doesn't fit its network.
        ModelError: See `train`.
    """
    if recipe.start is None:
        raise ConfigError("Pruning needs a trained model: --set start=NAME, as in 'finetune'.")
    if recipe.lora is not None:
        raise ConfigError("Pruned networks are trained whole: leave 'lora' out.")
    if recipe.hardware.devices * recipe.hardware.nodes > 1:
        raise ConfigError(
            "Units are chosen by one process: prune with --set hardware.devices=1 --set "
            "hardware.nodes=1; what is left can go on with --resume on more."
        )
    reduced = smaller(recipe, ratio)
    check_new(folder)
    device = pick_device(recipe.hardware.accelerator.replace("gpu", "cuda"))
    network = initial_network(recipe).to(device)
    sdr_before = mean_sdr(recipe, network)
    small = bare_network(reduced).to(device)
    gates = add_gates(network, small)
    batches = build_data(
        recipe.data,
        stems=(*recipe.stems, *recipe.background),
        sample_rate=recipe.sample_rate,
        channels=recipe.channels,
        seed=recipe.seed,
        device=device,
        allow_partial=recipe.allow_partial,
    )
    steps = max(1, recipe.steps // _SHARE)
    with closing(batches):
        learn_gates(network, gates, recipe, _endless(batches), steps, report)
    del batches  # what it keeps on the device
    shrink(network, gates, small)
    card = write_model(
        reduced, small.cpu(), folder / "pruned", name="start", source=f"'{recipe.start}', pruned"
    )
    start = str((folder / "pruned" / f"{card.name}.yaml").resolve())
    result = train(reduced.model_copy(update={"start": start}), folder, until=until, report=report)
    macs = (analyse(recipe).macs, analyse(reduced).macs)
    if sdr_before is None or result.sdr is None:
        return Pruned(macs, None, result)
    return Pruned(macs, (sdr_before, result.sdr), result)


def _endless(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from batches


@torch.no_grad()
def mean_sdr(recipe: Recipe, network: nn.Module) -> float | None:
    """Return the mean SDR over stems and tracks of a recipe's validation, None without one."""
    tracks = validation_tracks(recipe)
    if not tracks:
        return None
    device = next(network.parameters()).device
    network.eval()
    plan = plan_of(recipe)
    scores = [track_sdr(t, recipe.stems, lambda x: network(x.to(device)), plan) for t in tracks]
    network.train()
    return float(torch.stack(scores).nanmean(0).nanmean())
