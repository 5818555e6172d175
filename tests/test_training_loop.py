"""Training runs, of tiny networks on noise: exact to the bit, and safe when something happens."""

import errno
import inspect
import sys

import numpy as np
import pytest
import reference
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from safetensors.torch import load_file
from torch import Tensor
from training_runs import TINY, Noise, assert_learnt_the_same, recipe, track

from separator.datasets import LoadedAudio, Track
from separator.errors import ConfigError, ModelError
from separator.stream.inference import Plan
from separator.training import callbacks as callbacks_module
from separator.training import run as run_module
from separator.training import task as task_module
from separator.training.building import checkpoint_activations
from separator.training.callbacks import Report, spectrogram_picture
from separator.training.data.batches import Batches
from separator.training.export import trained_network
from separator.training.recipe import load_recipe
from separator.training.run import read_checkpoint, saved_recipe, train
from separator.training.schedules import ScheduleOptions
from separator.training.validation import track_sdr

pytest_plugins = ["training_runs"]
pytestmark = pytest.mark.usefixtures("noise")


@pytest.mark.slow
def test_twice_fifty_steps_are_a_hundred(tmp_path, validation):
    plan = recipe(
        steps=100,
        ema=0.9,
        clip=1.0,
        validation={**validation, "every": 25},
        save={"every": 30},
        augmentation={"gain": {}, "polarity": {}},
    )
    train(plan, tmp_path / "whole")
    train(plan, tmp_path / "halves", until=50)
    train(plan, tmp_path / "halves", resume=True)
    assert read_checkpoint(tmp_path / "whole/last.ckpt")["global_step"] == 100
    assert_learnt_the_same(tmp_path / "whole", tmp_path / "halves")


def test_accumulated_gradients_resume_exactly(tmp_path):
    plan = recipe(
        steps=6,
        accumulate=3,
        ema=0.5,
        optimizer={"name": "rmsprop", "rate": 0.001, "momentum": 0.5},
    )
    train(plan, tmp_path / "whole")
    for until in (1, 4, 6):
        train(plan, tmp_path / "parts", until=until, resume=until > 1)
    assert_learnt_the_same(tmp_path / "whole", tmp_path / "parts")


def test_accumulating_is_like_a_larger_batch(tmp_path, monkeypatch):
    """Two batches of two segments have the mean gradient of one of four."""
    plain = {**TINY["parameters"], "ff_dropout": 0.0}
    small = recipe(steps=1, accumulate=2, parameters=plain)
    train(small, tmp_path / "small")
    four = Noise(2, 2, 800)
    whole = torch.cat([four[0], four[1]])
    monkeypatch.setattr(
        task_module,
        "build_data",
        lambda *_, **__: Batches([whole] * 2, 2),
    )
    train(recipe(steps=1, parameters=plain), tmp_path / "large")
    one, two = (
        read_checkpoint(tmp_path / x / "last.ckpt")["state_dict"] for x in ("small", "large")
    )
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=1e-5)


def test_a_run_is_not_overwritten_and_not_invented(tmp_path):
    with pytest.raises(ConfigError, match="nothing to resume"):
        train(recipe(), tmp_path / "run", resume=True)
    train(recipe(steps=1), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"a run in .* already"):
        train(recipe(steps=1), tmp_path / "run")


def test_a_changed_recipe_counts_from_where_a_run_goes_on(tmp_path):
    """Also the optimizer's options, which its saved state holds as they were."""
    train(recipe(optimizer={"name": "adamw", "rate": 0.01}), tmp_path, until=2)
    optimizer = {"name": "adamw", "rate": 0.001, "weight_decay": 0.1, "betas": [0.8, 0.9]}
    reports: list[Report] = []
    train(recipe(optimizer=optimizer), tmp_path, resume=True, report=reports.append)
    assert reports[0].step == 2
    assert reports[0].changes == {
        "optimizer.rate": (0.01, 0.001),
        "optimizer.weight_decay": (0.0, 0.1),
        "optimizer.betas": ([0.9, 0.999], [0.8, 0.9]),
    }
    end = read_checkpoint(tmp_path / "last.ckpt")
    (group,) = end["optimizer_states"][0]["param_groups"]
    scale = ScheduleOptions(**TINY["schedule"]).scale(4, 4)
    assert (group["initial_lr"], group["lr"]) == (0.001, 0.001 * scale)
    assert (group["weight_decay"], group["betas"]) == (0.1, (0.8, 0.9))


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {**TINY["parameters"], "dim": 16}},
        {"stems": ["other", "vocals"]},
        {"optimizer": {"name": "adamw", "rate": 0.001}},
        {"ema": 0.9},
        {"start": "pocket", "lora": {}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_was_learnt_must_fit_the_recipe(tmp_path, change):
    """A recipe that doesn't is refused, and the run goes on by its own."""
    train(recipe(), tmp_path, until=1)
    with pytest.raises(ConfigError, match=r"was trained with .*go on without --config"):
        train(recipe(**change), tmp_path, resume=True)
    own = load_recipe(str(tmp_path / "recipe.yaml"))
    assert train(own, tmp_path, resume=True).step == 4


def test_two_runs_do_not_share_a_folder(tmp_path):
    """Also before there is a checkpoint; the first one is not disturbed."""

    def report(report: Report) -> None:
        with pytest.raises(ConfigError, match="Another process trains in"):
            train(recipe(steps=1), tmp_path)

    assert train(recipe(), tmp_path, report=report).step == 4
    assert saved_recipe(tmp_path / "last.ckpt") == load_recipe(str(tmp_path / "recipe.yaml"))


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    save = Trainer.save_checkpoint

    def save_a_part(trainer, path):
        if trainer.global_step < 3:
            return save(trainer, path)
        path.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    plan = recipe(save={"every": 1})
    with monkeypatch.context() as patch, pytest.raises(ModelError, match=r"no room.*--resume"):
        patch.setattr(Trainer, "save_checkpoint", save_a_part)
        train(plan, tmp_path / "run")
    assert not (tmp_path / "run/last.part").exists()
    assert read_checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 2
    train(plan, tmp_path / "run", resume=True)
    train(plan, tmp_path / "whole")
    assert_learnt_the_same(tmp_path / "run", tmp_path / "whole")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"Can't write to .*/file.*Choose another --output"):
        train(recipe(), tmp_path / "file")


def test_reports_and_scores(tmp_path, validation):
    reports: list[Report] = []
    result = train(recipe(validation=validation), tmp_path, report=reports.append)
    losses = [r for r in reports if "loss" in r.metrics]
    scores = [r for r in reports if "sdr/mean" in r.metrics]
    assert [r.step for r in losses] == [1, 2, 3, 4]
    assert [r.step for r in scores] == [2, 4]
    assert all(0 <= r.waiting <= 1 and r.speed > 0 for r in losses)
    last = scores[-1].metrics
    assert last["sdr/mean"] == pytest.approx((last["sdr/vocals"] + last["sdr/other"]) / 2, rel=1e-5)
    assert (result.step, result.sdr) == (4, last["sdr/mean"])
    assert saved_recipe(tmp_path / "last.ckpt") == recipe(validation=validation)
    assert len(list((tmp_path / "best").glob("*.ckpt"))) == 2


def test_samples_can_be_heard_and_seen_in_the_log(tmp_path, validation):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = {"every": 1, "tensorboard": True}
    train(recipe(validation={**validation, "excerpt": 0.1}, log=log), tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()
    names = {"mixture", "vocals", "other"}
    assert set(tags["images"]) == set(tags["audio"]) == names
    assert {"loss", "loss/l1", "rate", "sdr/mean", "sdr/vocals", "speed"} <= set(tags["scalars"])
    assert [event.step for event in events.Audio("vocals")] == [2, 4]
    assert events.Audio("vocals")[0].sample_rate == 8000
    rates = [event.value for event in events.Scalars("rate")]
    assert rates[0] == pytest.approx(0.001 / 5)  # the first of five steps of warming up


class Wandb(CSVLogger):
    """A logger that is called as Weights & Biases' is, and remembers what it is told."""

    def __init__(self, name, save_dir, *, project):
        super().__init__(save_dir, project, name)
        self.audio, self.images = {}, {}

    def log_audio(self, key, audios, step, *, sample_rate):
        self.audio[key] = (audios[0].shape, step, sample_rate)

    def log_image(self, key, images, step):
        self.images[key] = (images[0].ndim, step)


def test_samples_go_to_weights_and_biases(tmp_path, validation, monkeypatch):
    loggers = []
    for module in (run_module, callbacks_module):
        monkeypatch.setattr(module, "WandbLogger", Wandb)
    finalize = Wandb.finalize
    monkeypatch.setattr(
        Wandb, "finalize", lambda self, status: loggers.append(self) or finalize(self, status)
    )
    log = {"every": 1, "tensorboard": False, "wandb": "songs"}
    train(recipe(validation={**validation, "excerpt": 0.1}, log=log), tmp_path)
    (logger,) = loggers
    assert (logger.name, logger.version) == ("songs", tmp_path.name)
    assert logger.audio == dict.fromkeys(("mixture", "vocals", "other"), ((800, 2), 4, [8000]))
    assert logger.images == dict.fromkeys(("mixture", "vocals", "other"), (2, 4))
    arguments = inspect.signature(WandbLogger)
    assert arguments.bind("run", tmp_path, project="songs").arguments["save_dir"] == tmp_path


def test_weights_and_biases_must_be_installed(tmp_path, monkeypatch):
    def missing(*_, **__):
        raise ModuleNotFoundError("wandb")

    monkeypatch.setattr(run_module, "WandbLogger", missing)
    with pytest.raises(ConfigError, match=r"'log.wandb' needs .*pip install wandb"):
        train(recipe(log={"wandb": "songs"}), tmp_path)


def test_scores_are_those_of_the_averaged_weights(tmp_path, validation):
    plan = recipe(validation={**validation, "every": 4}, ema=0.5)
    result = train(plan, tmp_path)
    _, network = trained_network(read_checkpoint(tmp_path / "last.ckpt"), "test")
    cut = Plan(800, 0.25)
    with torch.no_grad():
        scores = [track_sdr(track(plan.stems, seed=s), plan.stems, network, cut) for s in range(2)]
    assert result.sdr == pytest.approx(float(torch.stack(scores).mean()), abs=1e-4)


def test_the_average_follows_the_weights(tmp_path):
    """The first update copies the weights, every later one moves the average half way."""
    plan = recipe(steps=3, ema=0.5, save={"every": 1})
    weights = []
    for until in (1, 2, 3):
        train(plan, tmp_path, until=until, resume=until > 1)
        weights.append(read_checkpoint(tmp_path / "last.ckpt")["state_dict"])
    key = "band_split.to_features.0.1.weight"
    steps = [state[f"network.{key}"] for state in weights]
    expected = steps[0] / 4 + steps[1] / 4 + steps[2] / 2
    torch.testing.assert_close(weights[-1][f"average.module.{key}"], expected)


def test_training_stops_without_progress(tmp_path, validation, monkeypatch):
    frozen = {"name": "adamw", "rate": 1e-30}
    plan = recipe(steps=100, optimizer=frozen, validation={**validation, "every": 1}, patience=3)
    result = train(plan, tmp_path)
    assert result.step == 4  # the first one is the best, and three more are not better


def test_patience_and_the_best_outlast_a_stop(tmp_path, validation):
    """Also where a validation comes last, and patience is what the recipe says at the end."""
    rates = {"optimizer": {"name": "adamw", "rate": 1e-30}, "save": {"best": 1}}
    plans = [
        recipe(steps=9, validation={**validation, "every": 1}, patience=patience, **rates)
        for patience in (5, 3)
    ]
    assert [train(plans[0], tmp_path, until=n, resume=n > 1).step for n in (1, 2)] == [1, 2]
    assert train(plans[1], tmp_path, resume=True).step == 4
    assert [path.name[:6] for path in (tmp_path / "best").iterdir()] == ["step-1"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_infinite_loss_stops_and_leaves_its_batch(tmp_path, monkeypatch, value):
    source = Noise(2, 2, 800)
    batches = [source[0], source[1], source[2] * value, source[3]]
    monkeypatch.setattr(task_module, "build_data", lambda *_, **__: Batches(batches, 4))
    with pytest.raises(ModelError, match=r"isn't finite at step 2 .*failed-step-2") as error:
        train(recipe(steps=5, save={"every": 1}), tmp_path)
    path = tmp_path / "failed-step-2-rank-0.safetensors"
    assert str(path) in str(error.value)
    torch.testing.assert_close(
        load_file(path)["targets"], batches[2], rtol=0, atol=0, equal_nan=True
    )
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 2


def test_scarce_memory_says_what_to_change(tmp_path, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(task_module.Task, "training_step", fail)
    with pytest.raises(ModelError, match=r"Out of memory on cpu .*--set data.batch=1"):
        train(recipe(), tmp_path)


def test_compiling_without_a_compiler_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"no 'no-such-compiler'.* compile=false"):
        train(recipe(compile=True), tmp_path)


def test_the_core_is_what_is_compiled(tmp_path, monkeypatch):
    """A backend of our own stands in for the C++ compiler, which takes minutes."""
    graphs = []

    def eager(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_module = torch.nn.Module.compile
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module: compile_module(module, backend=eager)
    )
    plain = {**TINY["parameters"], "ff_dropout": 0.0}
    runs = {}
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        train(recipe(steps=2, compile=compiled, parameters=plain), folder)
        runs[compiled] = read_checkpoint(folder / "last.ckpt")["state_dict"]
    assert graphs
    assert runs[True].keys() == runs[False].keys()
    for key, value in runs[False].items():
        torch.testing.assert_close(runs[True][key], value, rtol=1e-3, atol=1e-5)


def test_other_runtime_errors_are_not_hidden(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(task_module.Task, "training_step", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        train(recipe(), tmp_path)


@pytest.mark.parametrize("name", ["bs_roformer", "scnet", "htdemucs", "bsrnn_musical"])
def test_checkpointing_changes_no_gradient(name):
    mixture = reference.mixture(3000, reference.network(name).channels)
    gradients = []
    for checkpointing in (False, True):
        network = reference.network(name).train()
        if checkpointing:
            assert checkpoint_activations(network)
        network(mixture).square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_the_sdr_of_a_track_in_closed_form():
    """What is a tenth too quiet everywhere has an error a hundredth as strong: 20 dB."""
    song = track(["vocals"], samples=2501)

    def network(mixture: Tensor) -> Tensor:
        return torch.stack([0.9 * mixture, 0 * mixture], dim=1)

    silent = {**song.files, "other": (LoadedAudio(lambda: np.zeros((2501, 2)), 2, 2501),)}
    song = Track("song", 8000, 2, 2501, ("vocals", "other"), silent)
    scores = track_sdr(song, song.stems, network, Plan(800, 0.25))
    assert float(scores[0]) == pytest.approx(20.0, abs=1e-4)
    assert scores[1].isnan()


def test_a_picture_shows_low_notes_below():
    time = torch.arange(16000) / 8000
    picture = spectrogram_picture(torch.sin(2 * torch.pi * 500 * time)[None], height=64)
    assert picture.shape[:2] == (1, 64)
    assert 0 <= float(picture.min()) <= float(picture.max()) == 1
    assert int(picture[0, :, picture.shape[-1] // 2].argmax()) == 63 - 500 * 64 // 4000
