"""Recipes: what is refused and how, what the bundled ones say, and the parts they choose from."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from separator.errors import ConfigError, SeparatorError
from separator.networks.positions import PolarEmbedding
from separator.training.dryrun import analyse
from separator.training.optimizers import OptimizerOptions, Together, build_optimizer, is_matrix
from separator.training.recipe import apply_change, list_recipes, load_recipe, resolve
from separator.training.schedules import ScheduleOptions
from separator.training.shortage import what_to_change
from separator.words import rounded
from separator.zoo.search import find_card

RECIPE = {
    "description": "For tests",
    "network": "bs_roformer",
    "parameters": {"dim": 8, "depth": 1},
    "stems": ["vocals", "other"],
    "data": {"segment": 2.0, "batch": 4, "synthetic": {"songs": 2}},
    "loss": {"l1": 1.0},
    "optimizer": {"name": "adamw", "rate": 0.001},
    "steps": 10,
}


def changed(*changes: str) -> dict:
    data = copy.deepcopy(RECIPE)
    for change in changes:
        apply_change(data, change)
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stpes=3", "unknown key 'stpes'. Did you mean 'steps'"),
        ("optimizer.rte=1", "unknown key 'optimizer.rte'. Did you mean 'rate'"),
        ("data.synthetic.song=1", "unknown key 'data.synthetic.song'. Did you mean 'songs'"),
        ("loss.l2=1.0", "unknown key 'loss.l2'"),
        ("augmentation.gian={}", "unknown key 'augmentation.gian'. Did you mean 'gain'"),
        ("data={segmnet: 2.0, batch: 1}", "unknown key 'data.segmnet'. Did you mean 'segment'"),
        ("loss.spectral={nrom: l1}", "unknown key 'loss.spectral.nrom'. Did you mean 'norm'"),
        ("optimizer={rte: 1}", "unknown key 'optimizer.rte'. Did you mean 'rate'"),
        ("data.folders=[{pth: x}]", "unknown key 'data.folders.0.pth'. Did you mean 'path'"),
        ("stems=vocals", "'stems': input should be a valid list, got 'vocals'"),
        ("optimizer.betas=[0, 0, 0]", "'optimizer.betas': list should have at most 2 items"),
        ("parameters=3", "'parameters': input should be a mapping, got 3"),
        ("data.folders=[x]", "'data.folders.0': input should be a mapping with keys among path, "),
        ("augmentation.gain=3", "a mapping with keys among chance, low, high, unit"),
        ("steps=0", "'steps': input should be greater than 0"),
        ("steps=many", "'steps': input should be a valid integer"),
        ("optimizer.name=muon", "'muon' needs a 'matrix_rate'"),
        ("optimizer.matrix_rate=0.1", "'adamw' doesn't take a 'matrix_rate'"),
        ("optimizer.momentum=0.9", "'adamw' takes 'betas'"),
        ("schedule.name=step", "the schedule 'step' needs 'factor'"),
        ("patience=3", "there is no 'validation'"),
        ("lora={}", "'lora' changes a trained model"),
        ("parameters.stems=[a]", "'stems' is a field of the recipe itself"),
        ("background=[other]", "need different names"),
        ("stems=[other]", "mixtures of 'other' alone hold nothing to separate; name what else"),
        ("validation={every: 1}", "give either 'folder' or 'generated'"),
    ],
)
def test_mistakes_are_refused_by_name(change, message):
    with pytest.raises(ConfigError) as error:
        resolve(changed(change), "x.yaml")
    assert str(error.value).startswith("x.yaml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_resolved_recipe_says_the_same_again():
    recipe = resolve(changed("optimizer.rate=1e-3", "schedule={name: cosine, warmup: 2}"), "x")
    assert recipe.optimizer.rate == 0.001  # YAML 1.1 takes 1e-3 for a word
    assert resolve(recipe.model_dump(mode="json"), "x") == recipe


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("description: x\ndata:\n  batch: 1\n  segment: 2.0\n  batch: 4\n")
    with pytest.raises(ConfigError, match="'batch' is there twice in line 5"):
        load_recipe(str(path))


def test_changes_reach_into_lists_and_new_sections():
    data = {"data": {"folders": [{"path": "a"}, {"path": "b"}]}}
    apply_change(data, "data.folders.1.path=c")
    apply_change(data, "validation.every=5")
    assert data == {
        "data": {"folders": [{"path": "a"}, {"path": "c"}]},
        "validation": {"every": 5},
    }
    for wrong in ("data.folders.2.path=c", "data.folders.x=1", "steps", "=1", "a..b=1"):
        with pytest.raises(ConfigError, match="--set"):
            apply_change(data, wrong)
    with pytest.raises(ConfigError, match="nothing below"):
        apply_change({"steps": 3}, "steps.more.most=1")


def test_unknown_recipes_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'debug'"):
        load_recipe("debgu")


def test_a_saved_recipe_needs_its_card_no_more():
    whole = load_recipe("finetune").model_dump(mode="json") | {"start": "a card that is gone"}
    assert resolve(whole, "recipe.yaml").network == "bs_roformer"
    with pytest.raises(SeparatorError, match="a card that is gone"):
        resolve({key: value for key, value in whole.items() if key != "stems"}, "recipe.yaml")


def test_a_recipe_that_starts_from_a_model_takes_its_network():
    recipe, card = load_recipe("finetune"), find_card("pocket")
    assert recipe.start == "pocket"
    assert (recipe.network, recipe.parameters) == (card.network, card.parameters)
    assert (recipe.stems, recipe.sample_rate) == (card.stems, card.sample_rate)
    assert load_recipe("finetune", ["stems=[a, b]"]).stems == ("a", "b")
    changed = load_recipe("finetune", ["parameters.ff_dropout=0.1"])
    assert changed.parameters == {**card.parameters, "ff_dropout": 0.1}
    other = load_recipe("finetune", ["network=open_unmix", "parameters.n_fft=1024"])
    assert other.parameters == {"n_fft": 1024}


def test_one_stem_may_be_mended_where_none_is_separated():
    data = changed("stems=[other]", "augmentation.codec={}")
    assert resolve(data, "x").stems == ("other",)


def test_a_model_that_holds_no_weights_is_refused():
    with pytest.raises(ConfigError, match=r"'mdx_onnx' has no weights that .* than"):
        analyse(load_recipe("finetune", ["start=mdx-net-1-9703", "background=[other]"]))


def test_pocket_is_the_bundled_model():
    recipe, card = load_recipe("pocket"), find_card("pocket")
    assert recipe.parameters == card.parameters
    assert (recipe.network, recipe.stems) == (card.network, card.stems)


#: Millions of parameters in the papers, to the digit that they give.
PUBLISHED = {"bs_roformer_l6": 72.2, "bs_roformer_l12": 93.4, "mel_roformer_l6": 84.2}
PUBLISHED |= {"mel_roformer_l12": 105, "bandit_dnr": 37.0, "scnet": 10.6, "htdemucs": 41.4}
PUBLISHED |= {"resunet": 102, "tfc_tdf_v3": 112, "open_unmix": 4 * 8.9}


_LARGE = ("bandit_dnr", "mel_roformer_24gb", "mel_roformer_l12", "tfc_tdf_v3")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in _LARGE)) for name in list_recipes()],
)
def test_every_recipe_can_be_analysed(name):
    recipe = load_recipe(name)
    costs = analyse(recipe)
    batch, channels, samples = costs.mixture
    assert (batch, channels) == (recipe.data.batch, recipe.inputs * recipe.channels)
    assert samples == round(recipe.data.segment * recipe.sample_rate)
    assert costs.estimates == (batch, len(recipe.stems), recipe.channels, samples)
    assert costs.macs > 1e6
    assert costs.memory > 12 * costs.parameters  # a weight, its gradient, a mean at least
    if name in PUBLISHED:
        assert costs.parameters == pytest.approx(PUBLISHED[name] * 1e6, rel=0.03)


def test_open_unmix_has_the_loss_of_four_networks_on_plain_magnitudes():
    estimates, targets = torch.randn(2, 2, 4, 1, 20000, generator=torch.Generator().manual_seed(0))
    (found,) = load_recipe("open_unmix").loss.terms(estimates, targets, targets.sum(1)).values()

    def magnitudes(signal: torch.Tensor) -> torch.Tensor:
        window = torch.hann_window(4096)
        return torch.stft(signal[:, 0], 4096, 1024, window=window, return_complex=True).abs()

    pairs = zip(estimates.unbind(1), targets.unbind(1), strict=True)
    expected = sum((magnitudes(one) - magnitudes(two)).square().mean() for one, two in pairs)
    torch.testing.assert_close(found, expected)


def test_analysis_counts_what_is_known():
    recipe = resolve(
        {
            **RECIPE,
            "network": "open_unmix",
            "parameters": {"n_fft": 256, "hop_length": 64, "hidden_size": 8, "layers": 1},
            "stems": ["vocals"],
            "background": ["other"],
            "channels": 1,
            "data": {"segment": 0.1, "batch": 1, "synthetic": {}},
        },
        "x",
    )
    costs = analyse(recipe)
    frames, bins, hidden = 1 + 4410 // 64, 129, 8
    lstm = 2 * 4 * (hidden // 2) * (hidden + hidden // 2)  # directions, gates
    products = bins * hidden + lstm + 2 * hidden * hidden + hidden * bins
    assert costs.macs == pytest.approx(frames * products / 0.1)


def test_checkpointing_and_lora_cost_less_memory():
    data = changed("start=pocket", "network=bs_roformer")
    del data["parameters"], data["network"]
    plain = analyse(resolve(data, "x"))
    thrifty = analyse(resolve({**data, "checkpointing": True, "lora": {"rank": 2}}, "x"))
    assert thrifty.parameters == plain.parameters == plain.trained
    assert thrifty.trained < 0.1 * plain.trained
    assert thrifty.activations < 0.5 * plain.activations
    assert thrifty.weights < 0.5 * plain.weights


def test_numbers_are_written_with_prefixes():
    assert [rounded(x) for x in (0, 7, 1234, 2.5e9, 3e15)] == [
        "0",
        "7",
        "1.23 k",
        "2.5 G",
        "3e+03 T",
    ]


def test_advice_for_scarce_memory_names_the_option_and_its_value():
    def advice(*changes: str) -> str:
        return what_to_change(resolve(changed(*changes), "x"), "cuda:0").partition("Try ")[2]

    assert advice().startswith("--set data.batch=2 --set accumulate=2")
    assert advice("data.batch=3").startswith("--set data.batch=1 --set accumulate=3")
    assert advice("data.batch=1").startswith("--set checkpointing=true")
    tight = ("data.batch=1", "checkpointing=true")
    assert advice(*tight) == "--set precision=bfloat16."
    assert advice(*tight, "precision=float16") == "--set data.segment=1.4."


@pytest.mark.parametrize(
    ("options", "step", "expected"),
    [
        ({}, 50, 1.0),
        ({"warmup": 10}, 0, 0.1),
        ({"warmup": 10}, 9, 1.0),
        ({"name": "cosine"}, 0, 1.0),
        ({"name": "cosine"}, 50, 0.5),
        ({"name": "cosine", "final": 0.2}, 100, 0.2),
        ({"name": "cosine"}, 25, 0.5 + math.sqrt(0.125)),
        ({"name": "step", "factor": 0.5, "every": 10}, 29, 0.25),
        ({"name": "exponential", "factor": 0.25, "every": 10}, 5, 0.5),
        ({"name": "step", "factor": 0.5, "every": 10, "warmup": 40}, 19, 0.25),
    ],
)
def test_schedules_in_closed_form(options, step, expected):
    assert ScheduleOptions(**options).scale(step, 100) == pytest.approx(expected)


def test_a_schedule_scales_every_rate():
    network = nn.Linear(3, 2)
    options = OptimizerOptions(name="muon", rate=0.1, matrix_rate=0.2)
    optimizer = build_optimizer(options, network.modules())
    cosine = ScheduleOptions(name="cosine")
    schedule = LambdaLR(optimizer, lambda step: cosine.scale(step, 4))
    for _ in range(2):
        optimizer.step()
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.05])


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.Conv1d(3, 2, 1))


def steps(network: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for number in range(count):
        optimizer.zero_grad()
        hidden = network[1](network[0](torch.tensor([number % 5, 1, 2])))
        network[2](hidden.t()).square().sum().backward()
        optimizer.step()


def test_muon_takes_the_matrices_and_adamw_the_rest():
    network = small_network()
    options = OptimizerOptions(name="muon", rate=0.1, matrix_rate=0.2)
    optimizer = build_optimizer(options, network.modules())
    assert isinstance(optimizer, Together)
    muon, rest = (group["params"] for group in optimizer.param_groups)
    assert [p.shape for p in muon] == [network[1].weight.shape]
    assert len(rest) == 4
    assert not is_matrix(PolarEmbedding(2, 8), PolarEmbedding(2, 8).bias)


def test_optimizers_together_go_on_from_their_state():
    options = OptimizerOptions(name="muon", rate=0.1, matrix_rate=0.2)
    one, two = small_network(), small_network()
    whole = build_optimizer(options, one.modules())
    steps(one, whole, 6)
    first = build_optimizer(options, two.modules())
    steps(two, first, 3)
    second = build_optimizer(options, two.modules())
    second.load_state_dict(first.state_dict())
    # the batches follow from their number, which starts over every five
    for number in range(3, 6):
        second.zero_grad()
        hidden = two[1](two[0](torch.tensor([number % 5, 1, 2])))
        two[2](hidden.t()).square().sum().backward()
        second.step()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def size(network: nn.Module) -> float:
    return sum(float(p.detach().square().sum()) for p in network.parameters())


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_optimizers_lower_a_loss(name):
    network = small_network()
    optimizer = build_optimizer(OptimizerOptions(name=name, rate=0.01), network.modules())
    before = size(network[2])
    steps(network, optimizer, 30)
    assert size(network[2]) < before


def test_a_frozen_network_is_refused():
    network = small_network().requires_grad_(False)
    with pytest.raises(ConfigError, match="Nothing is trained"):
        build_optimizer(OptimizerOptions(rate=0.1), network.modules())
