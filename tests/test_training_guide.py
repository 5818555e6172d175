"""Networks that are trained on what another model found first."""

import pytest
import torch
from training_runs import TINY, assert_learnt_the_same, recipe

from separator.errors import ConfigError
from separator.networks import build_network
from separator.training.dryrun import analyse
from separator.training.export import write_model
from separator.training.guide import Guide, GuideOptions
from separator.training.run import read_checkpoint, train
from separator.training.task import Task
from separator.zoo.load import load_network
from separator.zoo.search import find_card

pytest_plugins = ["training_runs"]


@pytest.fixture
def guide(tmp_path):
    """Options of a guide with two stems, and the path of its card."""
    own = recipe()
    network = build_network(
        own.network, stems=own.stems, sample_rate=own.sample_rate, **own.parameters
    )
    write_model(own, network, tmp_path, name="first", source="random")
    return {
        "model": str(tmp_path / "first.yaml"),
        "stems": ["vocals"],
        "input": ["residual", "vocals"],
    }


def guided(guide, **changes):
    parameters = {**TINY["parameters"], "inputs": len(guide["input"])}
    return recipe(**{"guide": guide, "parameters": parameters, **changes})


def test_signals_stand_one_after_the_other(guide):
    options = {**guide, "input": ["mixture", "other", "residual"], "stems": ["other"]}
    mixture = torch.randn(2, 2, 900)
    network = load_network(find_card(guide["model"]))
    with torch.no_grad():
        other = network(mixture)[:, 1]
    heard = Guide(GuideOptions.model_validate(options), 8000, 2)(mixture)
    torch.testing.assert_close(heard, torch.cat([mixture, other, mixture - other], 1))


@pytest.mark.usefixtures("noise")
def test_a_guide_is_heard_but_neither_trained_nor_saved(tmp_path, guide, validation):
    plan = guided(guide, ema=0.5, validation=validation)
    task = Task(plan, tmp_path)
    before = {key: v.clone() for key, v in task.guide.network.state_dict().items()}
    train(plan, tmp_path / "whole")
    train(plan, tmp_path / "halves", until=2)
    train(plan, tmp_path / "halves", resume=True)
    assert_learnt_the_same(tmp_path / "whole", tmp_path / "halves")
    learnt = read_checkpoint(tmp_path / "whole/last.ckpt")["state_dict"]
    assert learnt.keys() == task.state_dict().keys()
    assert not any("guide" in key for key in learnt)
    again = Task(plan, tmp_path).guide.network.state_dict()
    assert all(torch.equal(again[key], v) for key, v in before.items())
    assert not torch.equal(task.heard(torch.ones(1, 2, 800)), torch.ones(1, 4, 800))


@pytest.mark.usefixtures("noise")
def test_training_and_validation_hear_the_same(tmp_path, guide, monkeypatch):
    heard = []
    monkeypatch.setattr(Guide, "__call__", lambda self, x: heard.append(x) or torch.cat([x, x], 1))
    task = Task(guided(guide), tmp_path)
    mixture = torch.randn(1, 2, 800)
    with torch.no_grad():
        task.eval()
        expected = task.network(torch.cat([mixture, mixture], 1))
        torch.testing.assert_close(task.separate(mixture), expected)
    assert torch.equal(heard[0], mixture)


def test_costs_count_all_that_is_heard(guide):
    assert analyse(guided(guide)).mixture == (2, 4, 800)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": ["drums"]}, "'input' takes mixture, residual, vocals; got 'drums'"),
        ({"stems": ["kazoo"], "input": ["kazoo"]}, "has no stem 'kazoo'; it has: vocals, other"),
        ({"model": "umxhq"}, "'umxhq' is an ensemble"),
        ({"model": "pocket"}, "'pocket' has 44100 Hz and 2 channel.s., the recipe 8000 Hz"),
    ],
)
def test_mistakes_are_named(tmp_path, guide, change, message):
    with pytest.raises(ConfigError, match=message):
        Task(guided({**guide, **change}), tmp_path)


def test_networks_hear_as_many_signals_as_there_are(tmp_path, guide):
    with pytest.raises(ConfigError, match=r"hears 1 signal\(s\), 'guide.input' gives 2"):
        Task(guided(guide, parameters=TINY["parameters"]), tmp_path)
