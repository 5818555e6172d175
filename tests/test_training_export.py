"""What comes of training runs: models like any other, and where the next ones start."""

import pytest
import reference
import torch
import yaml
from conftest import weights_entry
from safetensors.torch import load_file
from training_runs import TINY, recipe

from separator.errors import ConfigError, ModelError
from separator.networks import build_network
from separator.training.building import bare_network, initial_network
from separator.training.export import export, trained_network
from separator.training.lora import add_lora, merge
from separator.training.recipe import LoraOptions, resolve
from separator.training.run import read_checkpoint, train
from separator.zoo.load import load_network
from separator.zoo.search import find_card

pytest_plugins = ["training_runs"]
pytestmark = pytest.mark.usefixtures("noise")


_LARGE = ("vr_aspp", "vr_lstm", "demucs")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in _LARGE))
        for name in reference.one_case_each()
    ],
)
def test_every_network_trains_saves_resumes_and_exports(tmp_path, name):
    case = reference.CASES[name]
    own = ("stems", "channels", "sample_rate")
    defaults = build_network(case.network, **case.parameters)
    if not any(parameter.requires_grad for parameter in defaults.parameters()):
        pytest.skip("there is nothing to train in it")
    plan = recipe(
        network=case.network,
        parameters={k: v for k, v in case.parameters.items() if k not in own},
        stems=list(defaults.stems),
        channels=defaults.channels,
        sample_rate=defaults.sample_rate,
        data={"segment": case.samples / defaults.sample_rate, "batch": 2, "synthetic": {}},
        optimizer={"name": "adamw", "rate": 0.001},
        steps=2,
    )
    train(plan, tmp_path / "run", until=1)
    assert train(plan, tmp_path / "run", resume=True).step == 2
    card = export(tmp_path / "run", tmp_path / "models", name="new")
    network = load_network(find_card(str(tmp_path / "models/new.yaml")))
    _, trained = trained_network(read_checkpoint(tmp_path / "run/last.ckpt"), "test")
    assert card.network == case.network
    before = initial_network(plan).state_dict()
    changed = 0
    for key, value in trained.state_dict().items():
        torch.testing.assert_close(network.state_dict()[key], value, rtol=1e-3, atol=1e-6)
        changed += not torch.equal(before[key], value)
    assert changed > 0


def test_an_exported_model_says_how_it_was_trained(tmp_path, cli):
    plan = recipe(
        steps=2,
        ema=0.9,
        loss={"l1": 1.0, "multi_resolution_stft": {"weight": 0.5, "n_fft": 256, "windows": [256]}},
        data={"segment": 0.1, "batch": 2, "folders": [{"path": "a/songs"}, {"path": "b/more"}]},
    )
    train(plan, tmp_path / "runs/My Run")
    card = export(tmp_path / "runs/My Run", tmp_path / "models", licence="MIT")
    assert card.name == "my-run"
    assert card.training_data == "songs (train), more (train)"
    assert card.source == (
        "separator train: 2 steps of 2 x 0.1 s, muon at 0.001, cosine, "
        "loss 1 l1 + 0.5 multi_resolution_stft, float32, EMA 0.9, seed 0"
    )
    assert (card.licence, card.segment) == ("MIT", 0.1)
    weights = load_file(tmp_path / "models/weights/my-run.safetensors")
    exact = {key: v for key, v in weights.items() if v.dtype == torch.float32}
    assert {v.dtype for v in weights.values()} == {torch.float16, torch.float32}
    network = bare_network(plan)
    assert len(exact) == sum("rotary_embed.freqs" in key for key in network.state_dict())
    assert all(v.equal(network.state_dict()[key]) for key, v in exact.items())
    with pytest.raises(ConfigError, match="a card 'my-run'"):
        export(tmp_path / "runs/My Run", tmp_path / "models")
    export(tmp_path / "runs/My Run/last.ckpt", tmp_path / "models", name="other")
    with pytest.raises(ConfigError, match="'name'"):
        export(tmp_path / "runs/My Run", tmp_path / "models", name="No Name")
    files = {path.name for path in (tmp_path / "models").rglob("*.*")}
    names = ("my-run", "other")
    assert files == {f"{name}.{end}" for name in names for end in ("yaml", "safetensors")}


def test_weights_that_float16_cannot_hold_are_refused(tmp_path):
    train(recipe(steps=1, initial_scale={"mask_estimators": 1e7}), tmp_path / "run")
    with pytest.raises(ModelError, match="float16 can't hold"):
        export(tmp_path / "run", tmp_path / "models")
    assert not (tmp_path / "models/run.yaml").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "last.ckpt"
    with pytest.raises(ModelError, match="Can't read"):
        read_checkpoint(path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ModelError, match="damaged or no checkpoint"):
        read_checkpoint(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ModelError, match="holds no recipe"):
        export(tmp_path, tmp_path / "models")


def test_fine_tuning_starts_from_the_weights_of_a_card(tmp_path):
    train(recipe(steps=2), tmp_path / "run")
    export(tmp_path / "run", tmp_path / "models", name="first")
    start = str(tmp_path / "models/first.yaml")
    data = {k: v for k, v in TINY.items() if k not in ("network", "parameters", "stems")}
    tuned = resolve({**data, "start": start}, "test")
    assert tuned.parameters == recipe().parameters
    first = load_network(find_card(start))
    for key, value in initial_network(tuned).state_dict().items():
        assert torch.equal(value, first.state_dict()[key])
    train(tuned, tmp_path / "tuned", until=1)
    (tmp_path / "models/weights/first.safetensors").unlink()  # not needed any more
    train(tuned, tmp_path / "tuned", resume=True)
    card = export(tmp_path / "tuned", tmp_path / "models")
    assert "was trained on" in card.training_data
    assert f"from '{start}'" in card.source


def test_fine_tuning_starts_from_a_file_of_one_target(tmp_path):
    """Open-Unmix' files don't say which stem they are of; the card does."""
    settings = {"n_fft": 256, "hop_length": 64, "hidden_size": 12, "wiener_iterations": 0}
    trained = build_network("open_unmix", stems=["vocals"], **settings)
    prefix = "target_models.vocals."
    state = {key.removeprefix(prefix): value for key, value in trained.state_dict().items()}
    torch.save(state, tmp_path / "vocals.pth")
    card = {"name": "one", "description": "One", "network": "open_unmix", "licence": "MIT"}
    card |= {"parameters": settings, "stems": ["vocals"], "segment": 1.0}
    card["weights"] = weights_entry(tmp_path / "vocals.pth", "open_unmix")
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(card))
    own = ("network", "parameters", "stems", "sample_rate")
    plan = {key: value for key, value in TINY.items() if key not in own}
    plan |= {"optimizer": {"name": "adamw", "rate": 0.001}, "background": ["other"]}
    network = initial_network(resolve({**plan, "start": str(tmp_path / "one.yaml")}, "test"))
    for key, value in network.state_dict().items():
        assert torch.equal(value, trained.state_dict()[key])


def test_low_rank_updates_train_little_and_merge(tmp_path):
    train(recipe(steps=1), tmp_path / "run")
    export(tmp_path / "run", tmp_path / "models", name="first")
    start = str(tmp_path / "models/first.yaml")
    tuned = recipe(start=start, lora={"rank": 2, "layers": ["to_qkv"], "also": ["final_norm"]})
    train(tuned, tmp_path / "tuned")
    export(tmp_path / "tuned", tmp_path / "models", name="second")
    one = load_network(find_card(start)).state_dict()
    two = load_network(find_card(str(tmp_path / "models/second.yaml"))).state_dict()
    assert one.keys() == two.keys()
    changed = {key for key in one if not torch.equal(one[key], two[key])}
    assert changed <= {key for key in one if "to_qkv" in key or "final_norm" in key}
    assert any("to_qkv" in key for key in changed)
    _, exact = trained_network(read_checkpoint(tmp_path / "tuned/last.ckpt"), "test")
    key = next(key for key in changed if "to_qkv" in key)  # float16 has rounded it in the model
    assert torch.linalg.matrix_rank(exact.state_dict()[key] - one[key], rtol=1e-3) == 2


def test_a_low_rank_update_is_nothing_at_first_and_survives_merging():
    network = initial_network(recipe()).eval()
    mixture = reference.mixture(1000)
    with torch.no_grad():
        before = network(mixture)
        add_lora(network, LoraOptions(rank=2))
        assert torch.equal(network(mixture), before)
        for name, parameter in network.named_parameters():
            if name.endswith("up"):
                parameter.normal_()
        updated = network(mixture)
        merged = merge(network)(mixture)
    assert not torch.equal(updated, before)
    torch.testing.assert_close(merged, updated)
    with pytest.raises(ConfigError, match=r"Did you mean 'to_qkv'"):
        add_lora(network, LoraOptions(layers=("to_qvk",)))
