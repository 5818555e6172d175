"""Training runs, of tiny networks on noise: exact to the bit, and safe when something happens."""

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from separator.datasets import LoadedAudio, Track
from separator.errors import ConfigError, ModelError
from separator.inference import Plan
from separator.networks import build_network
from separator.training import task as task_module
from separator.training.batches import Batches, outlive_one_signal
from separator.training.building import checkpoint_activations, initial_network
from separator.training.callbacks import Report, Stopped, spectrogram_picture
from separator.training.data import build_data
from separator.training.export import export, trained_network
from separator.training.lora import add_lora, merge
from separator.training.recipe import LoraOptions, Recipe, resolve
from separator.training.run import read_checkpoint, saved_recipe, train
from separator.training.validation import track_sdr
from separator.zoo import find_card, load_network

TINY = {
    "description": "For tests",
    "network": "bs_roformer",
    "parameters": {
        "dim": 8,
        "depth": 1,
        "heads": 1,
        "dim_head": 8,
        "n_fft": 256,
        "hop_length": 128,
        "bands": [1, 8, 40, 80],
        "mask_estimator_depth": 1,
        "mlp_expansion_factor": 1,
        "ff_dropout": 0.2,
    },
    "stems": ["vocals", "other"],
    "sample_rate": 8000,
    "data": {"segment": 0.1, "batch": 2, "steps_per_epoch": 7, "synthetic": {}},
    "loss": {"l1": 1.0},
    "optimizer": {"name": "muon", "rate": 0.001, "matrix_rate": 0.001},
    "schedule": {"name": "cosine", "warmup": 5},
    "steps": 4,
    "log": {"every": 1, "tensorboard": False},
}


class Noise:
    """Stems of noise: a function of the position, as every source's."""

    def __init__(self, stems: int, channels: int, samples: int) -> None:
        self.shape = (2, stems, channels, samples)

    def __getitem__(self, position: int) -> Tensor:
        noise = np.random.default_rng([7, position]).standard_normal(self.shape)
        return torch.from_numpy(0.1 * noise.astype(np.float32))


@pytest.fixture(autouse=True)
def noise(monkeypatch):
    """Train on noise, in one thread."""

    def batches_of_noise(options, *, stems, sample_rate, channels, **_):
        source = Noise(len(stems), channels, round(options.segment * sample_rate))
        return Batches(source, options.steps_per_epoch)

    monkeypatch.setattr(task_module, "build_data", batches_of_noise)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def songs(monkeypatch):
    """Validate on two songs of noise."""

    def tracks(recipe):
        return [track(recipe.stems, recipe.channels, seed) for seed in range(2)]

    monkeypatch.setattr(task_module, "validation_tracks", tracks)
    return {"every": 2, "generated": {}, "excerpt": 0.0}


def track(stems, channels: int = 2, seed: int = 0, samples: int = 2500) -> Track:
    generator = np.random.default_rng(seed)
    parts = {stem: 0.1 * generator.standard_normal((samples, channels)) for stem in stems}
    parts["mixture"] = sum(parts.values())
    files = {
        name: (LoadedAudio(lambda a=audio: a.astype(np.float32), channels, samples),)
        for name, audio in parts.items()
    }
    return Track(f"song{seed}", 8000, channels, samples, tuple(stems), files)


def recipe(**changes) -> Recipe:
    return resolve({**TINY, **changes}, "test")


def assert_same(one, two) -> None:
    """Compare nested containers to the bit."""
    if isinstance(one, Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    else:
        assert one == two


LEARNT = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "recipe")


def test_twice_fifty_steps_are_a_hundred(tmp_path, songs):
    plan = recipe(
        steps=100,
        ema=0.9,
        clip=1.0,
        validation={**songs, "every": 25},
        save={"every": 30},
        augmentation={"gain": {}, "polarity": {}},
    )
    train(plan, tmp_path / "whole")
    train(plan, tmp_path / "halves", until=50)
    train(plan, tmp_path / "halves", resume=True)
    whole, halves = (read_checkpoint(tmp_path / x / "last.ckpt") for x in ("whole", "halves"))
    assert whole["global_step"] == 100
    for key in LEARNT:
        assert_same(whole[key], halves[key])


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
    whole, parts = (read_checkpoint(tmp_path / x / "last.ckpt") for x in ("whole", "parts"))
    for key in LEARNT:
        assert_same(whole[key], parts[key])


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
        lambda *_, **__: Batches([whole] * 2, 2),  # type: ignore[arg-type]
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


def test_reports_and_scores(tmp_path, songs):
    reports: list[Report] = []
    result = train(recipe(validation=songs), tmp_path, report=reports.append)
    losses = [r for r in reports if "loss" in r.metrics]
    scores = [r for r in reports if "sdr/mean" in r.metrics]
    assert [r.step for r in losses] == [1, 2, 3, 4]
    assert [r.step for r in scores] == [2, 4]
    assert all(0 <= r.waiting <= 1 and r.speed > 0 for r in losses)
    last = scores[-1].metrics
    assert last["sdr/mean"] == pytest.approx((last["sdr/vocals"] + last["sdr/other"]) / 2, rel=1e-5)
    assert (result.step, result.sdr) == (4, last["sdr/mean"])
    assert saved_recipe(tmp_path / "last.ckpt") == recipe(validation=songs)
    assert len(list((tmp_path / "best").glob("*.ckpt"))) == 2


def test_samples_can_be_heard_and_seen_in_the_log(tmp_path, songs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = {"every": 1, "tensorboard": True}
    train(recipe(validation={**songs, "excerpt": 0.1}, log=log), tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()
    names = {"mixture", "vocals", "other"}
    assert set(tags["images"]) == set(tags["audio"]) == names
    assert {"loss", "loss/l1", "rate", "sdr/mean", "sdr/vocals", "speed"} <= set(tags["scalars"])
    assert [event.step for event in events.Audio("vocals")] == [2, 4]
    assert events.Audio("vocals")[0].sample_rate == 8000
    rates = [event.value for event in events.Scalars("rate")]
    assert rates[0] == pytest.approx(0.001 / 5)  # the first of five steps of warming up


def test_scores_are_those_of_the_averaged_weights(tmp_path, songs):
    plan = recipe(validation={**songs, "every": 4}, ema=0.5)
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


def test_training_stops_without_progress(tmp_path, songs, monkeypatch):
    frozen = {"name": "adamw", "rate": 1e-30}
    plan = recipe(steps=100, optimizer=frozen, validation={**songs, "every": 1}, patience=3)
    result = train(plan, tmp_path)
    assert result.step == 4  # the first one is the best, and three more are not better


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends(tmp_path, number):
    """The step in which it comes is finished; afterwards, signals do what they did before."""
    before = signal.getsignal(number)

    def report(report: Report) -> None:
        if report.step == 2:
            signal.raise_signal(number)

    plan = recipe(steps=6)
    with pytest.raises(Stopped) as stop:
        train(plan, tmp_path / "run", report=report)
    assert stop.value.signal == number
    assert signal.getsignal(number) == before
    assert stop.value.step == read_checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 3
    train(plan, tmp_path / "run", resume=True)
    train(plan, tmp_path / "whole")
    for key in LEARNT:
        one, two = (read_checkpoint(tmp_path / x / "last.ckpt")[key] for x in ("run", "whole"))
        assert_same(one, two)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_outlive_the_signal_that_everybody_gets(number):
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        outlive_one_signal(0)
        signal.raise_signal(number)
        assert signal.getsignal(number) == signal.SIG_DFL  # the next one ends it
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_signal_breaks_a_validation_off(tmp_path, songs, monkeypatch):
    """What is saved is the state before it, from which the run goes on as if nothing had been."""
    plan = recipe(steps=6, validation=songs, ema=0.5, save={"every": 100})
    train(plan, tmp_path / "whole")
    separate = task_module.Task.separate

    def interrupted(task, mixture):
        if task.global_step == 4:
            signal.raise_signal(signal.SIGTERM)
        return separate(task, mixture)

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="step 4 by SIGTERM"):
        patch.setattr(task_module.Task, "separate", interrupted)
        train(plan, tmp_path / "run")
    assert read_checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 4
    train(plan, tmp_path / "run", resume=True)
    one, two = (read_checkpoint(tmp_path / x / "last.ckpt") for x in ("run", "whole"))
    for key in LEARNT:
        assert_same(one[key], two[key])


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


def one_case_each() -> list[str]:
    cases = {}
    for name, case in reference.CASES.items():
        cases.setdefault(case.network, name)
    return list(cases.values())


@pytest.mark.parametrize("name", one_case_each())
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
    assert {v.dtype for v in weights.values() if v.is_floating_point()} == {torch.float16}
    with pytest.raises(ConfigError, match="a card 'my-run'"):
        export(tmp_path / "runs/My Run", tmp_path / "models")
    export(tmp_path / "runs/My Run/last.ckpt", tmp_path / "models", name="other")


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


def test_the_command_trains_stops_resumes_exports_and_separates(cli, tmp_path, song):
    Path("small.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(TINY))))
    done = cli("train", "--config", "small.yaml", "--set", "steps=3", "--until", "2")
    assert done.stdout == "runs/small\n"
    assert "step 2/2: loss" in done.stderr
    assert "Trained 2 steps" in done.stderr
    cli("train", "-o", "runs/small", "--resume")
    assert read_checkpoint(Path("runs/small/last.ckpt"))["global_step"] == 3
    done = cli("train", "export", "runs/small", "models", "--licence", "MIT")
    assert done.stdout == "models/small.yaml\n"
    cli("separate", song("song.wav"), "-o", "out", "--model", "models/small.yaml")
    assert sorted(path.name for path in Path("out/song").iterdir()) == ["other.wav", "vocals.wav"]


def test_the_command_refuses_in_one_line(cli):
    for words, message in (
        (["train"], "What to train?"),
        (["train", "--config", "debgu"], "Did you mean 'debug'"),
        (["train", "--config", "debug", "--set", "stpes=1"], "Did you mean 'steps'"),
        (["train", "--resume", "-o", "runs/none"], "no run in 'runs/none'"),
    ):
        result = cli(*words, code=2)
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_faulty_data_set_is_shown_as_a_table(cli, song, monkeypatch):
    monkeypatch.setattr(task_module, "build_data", build_data)  # not noise
    louder = np.linspace(0.1, 0.5, 64000) * np.random.default_rng(0).standard_normal((2, 64000))
    for number in range(2):
        for stem in ("vocals", "other")[: 2 - number]:
            Path(f"songs/{number}").mkdir(parents=True, exist_ok=True)
            song(f"songs/{number}/{stem}.wav", 0.3 * louder.astype(np.float32), 8000)
    data = {"segment": 0.1, "batch": 1, "folders": [{"path": "songs", "split": "all"}]}
    Path("small.yaml").write_text(yaml.safe_dump({**TINY, "steps": 1, "data": data}))
    result = cli("train", "--config", "small.yaml", code=2)
    assert "no stem 'other'" in result.stdout
    assert "1 of 2 songs" in result.stderr
    cli("train", "--config", "small.yaml", "--allow-partial")
    assert saved_recipe(Path("runs/small/last.ckpt")).allow_partial


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_command_says_how_to_go_on_after_a_signal(cli, monkeypatch, number, code):
    def stop(*_, **__):
        raise Stopped(3, number)

    monkeypatch.setattr("separator.training.run.train", stop)
    Path("small.yaml").write_text(yaml.safe_dump(TINY))
    result = cli("train", "--config", "small.yaml", code=code)
    assert f"Stopped at step 3 by {number.name}" in result.stderr
    assert "separator train --output runs/small --resume" in result.stderr


def test_missing_libraries_are_named(cli, monkeypatch):
    from separator.cli import train as command

    monkeypatch.setattr(command, "_LIBRARIES", ("json", "no_such_library"))
    result = cli("train", "list", code=1)
    assert "needs no_such_library" in result.stderr
    assert "pip install 'separator[train]'" in result.stderr


def test_the_recipes_are_listed(cli):
    lines = cli("train", "list").stdout.splitlines()
    assert {"debug", "pocket", "finetune", "scnet"} <= {line.split()[0] for line in lines}


def test_the_dry_run_says_what_a_recipe_costs(cli):
    Path("small.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(TINY))))
    done = cli("train", "--config", "small.yaml", "--dry-run", "--set", "data.batch=1")
    for word in (
        "(1, 2, 800)",
        "(1, 2, 2, 800)",
        "parameters",
        "MACs",
        "memory",
        "steps per second",
    ):
        assert word in done.stdout
    assert not Path("runs").exists()
