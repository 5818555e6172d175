"""Demucs' files: what is read, what is decoded, and what is refused without being run."""

import json
import os
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import reference
import torch
import yaml
from conftest import weights_entry
from safetensors.torch import save_file
from torch import Tensor
from training_runs import TINY

from separator.checkpoints.diffq import dequantize, unpack
from separator.checkpoints.packages import is_package, read_package
from separator.checkpoints.states import load_state, read_state
from separator.errors import ConfigError, ModelError
from separator.networks import build_network
from separator.training.building import initial_network
from separator.training.recipe import resolve

STEMS = ["drums", "vocals"]
SMALL: dict[str, Any] = {
    "sources": STEMS,
    "audio_channels": 2,
    "samplerate": 44100,
    "segment": Fraction(39, 5),
    "channels": 4,
    "depth": 2,
    "nfft": 512,
}
OURS = {"stems": STEMS, "hidden_channels": 4, "depth": 2, "n_fft": 512}


def network(name: str = "hdemucs") -> torch.nn.Module:
    torch.manual_seed(0)
    own = {key: value for key, value in OURS.items() if name != "demucs" or key != "n_fft"}
    return build_network(name, **own)


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], type]:
    """Return a maker of classes that a pickle finds under the given name."""

    def make(name: str) -> type:
        module, _, attribute = name.rpartition(".")
        for part in (module.split(".")[0], module):
            monkeypatch.setitem(sys.modules, part, ModuleType(part))
        made = type(attribute, (), {"__module__": module})
        setattr(sys.modules[module], attribute, made)
        return made

    return make


def pack(numbers: Tensor, planes: int, layout: str) -> Tensor:
    """Pack whole numbers bit by bit, one at a time, in one of DiffQ's two layouts."""
    flat = numbers.flatten().tolist()
    if layout == "blocks":
        packed = torch.zeros(-(-len(flat) // 2048), planes, 32, dtype=torch.int64)
        for k, number in enumerate(flat):
            block, place, word = k // 2048, k % 2048 // 32, k % 32
            for bit in range(planes):
                value = (number >> bit & 1) << place
                packed[block, bit, word] |= value - (1 << 64) if value >= 1 << 63 else value
        return packed
    words = -(-len(flat) // 16)
    packed = torch.zeros(planes, words, dtype=torch.int16)
    for k, number in enumerate(flat):
        for bit in range(planes):
            value = (number >> bit & 1) << (k // words)
            packed[bit, k % words] |= value - (1 << 16) if value >= 1 << 15 else value
    return packed


def quantize(state: dict[str, Tensor], layout: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Quantise a state as DiffQ does; return its form and what must be read from it."""
    group, least, quantized, others, truth = 8, 120, [], [], {}
    for seed, (name, parameter) in enumerate(state.items()):
        truth[name] = parameter
        if parameter.numel() <= least:
            others.append(parameter)
            continue
        generator = torch.Generator().manual_seed(seed)
        low, high = parameter.min().item(), parameter.max().item()
        depths = torch.randint(2, 15, (parameter.numel() // group, 1), generator=generator)
        unit = 1 / (2.0**depths - 1)
        levels = ((parameter.reshape(-1, group) - low) / (high - low) / unit).round().long()
        packed = [
            pack(levels[depths[:, 0] == bit], bit, layout) if (depths == bit).any() else None
            for bit in range(1, 15)
        ]
        quantized.append((packed, (low, high), pack(depths - 2, 4, layout)))
        truth[name] = (levels * unit * (high - low) + low).reshape(parameter.shape)
    options = {"group_size": group, "min_size": 4 * least / 2**20}
    form = {
        "quantized": quantized,
        "float16": [],
        "others": others,
        "meta": {"init_kwargs": options, "packed": True, "klass": None},
        "__quantized": True,
    }
    return form, truth


def save(path: Path, klass: Any, state: Any, /, **changes: Any) -> Path:
    package = {"klass": klass, "args": (), "kwargs": SMALL, "state": state, **changes}
    torch.save(package, path)
    return path


@pytest.mark.parametrize("module", ["hdemucs.HDemucs", "wdemucs.WDemucs", "demucs.Demucs"])
def test_a_pickled_file_is_read(
    tmp_path: Path, foreign: Callable[[str], type], module: str
) -> None:
    name = "demucs" if module == "demucs.Demucs" else "hdemucs"
    source = network(name)
    half = {key: value.half() for key, value in source.state_dict().items()}
    obsolete = {"no_longer_known": 3, "training": {"lr": 1e-3}}
    path = save(
        tmp_path / "x.th",
        foreign(f"demucs.{module}"),
        half,
        kwargs=SMALL | obsolete | {"nfft": 512},
    )
    package = read_package(path)
    assert is_package(path)
    assert package.network == name
    assert package.segment == 7.8
    built = build_network(name, **package.hyperparameters)
    built.load_state_dict(package.state)
    assert read_state(path, "demucs").keys() == half.keys()
    for key, value in built.state_dict().items():
        assert value.equal(half[key].float())


def test_fine_tuning_takes_the_hyper_parameters_that_stand_in_the_file(
    tmp_path: Path, foreign: Callable[[str], type]
) -> None:
    source = network()
    path = save(tmp_path / "x.th", foreign("demucs.hdemucs.HDemucs"), source.state_dict())
    card = {"name": "small", "description": "Small", "network": "hdemucs", "licence": "MIT"}
    card |= {"stems": STEMS, "segment": 1.0, "weights": weights_entry(path, "demucs")}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(card))
    start = {"start": str(tmp_path / "small.yaml")}
    own = ("network", "parameters", "stems", "sample_rate")
    plan = {key: value for key, value in TINY.items() if key not in own}
    recipe = resolve({**plan, **start, "optimizer": {"name": "adamw", "rate": 1e-3}}, "x")
    assert recipe.parameters["hidden_channels"] == OURS["hidden_channels"]
    state = initial_network(recipe).state_dict()
    assert all(torch.equal(state[key], value) for key, value in source.state_dict().items())


def test_files_without_zip_are_read(tmp_path: Path, foreign: Callable[[str], type]) -> None:
    source, path = network(), tmp_path / "x.th"
    package = {"klass": foreign("demucs.hdemucs.HDemucs"), "args": (), "kwargs": SMALL}
    content = {**package, "state": source.state_dict()}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    state = read_package(path).state
    assert all(state[key].equal(value) for key, value in source.state_dict().items())


@pytest.mark.parametrize(("name", "checksum"), [("demucs", 1150917047), ("hdemucs", 2433270462)])
def test_parameters_are_in_the_order_of_demucs(name: str, checksum: int) -> None:
    """Quantised files name no parameters; the checksums are those of demucs 4.1.0's keys."""
    with torch.device("meta"):
        keys = build_network(name, stems=["drums", "bass", "other", "vocals"]).state_dict()
    assert crc32("\n".join(keys).encode()) == checksum


def test_arguments_may_have_no_names(tmp_path: Path, foreign: Callable[[str], type]) -> None:
    rest = {key: value for key, value in SMALL.items() if key != "sources"}
    klass = foreign("demucs.hdemucs.HDemucs")
    path = save(tmp_path / "x.th", klass, network().state_dict(), args=(STEMS,), kwargs=rest)
    assert read_package(path).hyperparameters["stems"] == STEMS


def test_files_of_2020_are_tuples(tmp_path: Path, foreign: Callable[[str], type]) -> None:
    own = {"dconv_mode": 0, "gelu": False, "lstm_layers": 2, "context": 3, "norm_starts": 9}
    source = build_network(
        "demucs", stems=STEMS, hidden_channels=4, depth=2, normalize=False, **own
    )
    old = {
        key.replace(".3.", ".2.") if key[:7] in ("encoder", "decoder") else key: value
        for key, value in source.state_dict().items()
    }
    path = tmp_path / "x.th"
    kwargs = {"channels": 4, "depth": 2, "audio_channels": 2}
    torch.save((foreign("demucs.model.Demucs"), [STEMS], kwargs, old), path)
    package = read_package(path)
    assert package.hyperparameters["normalize"] is False
    build_network("demucs", **package.hyperparameters).load_state_dict(package.state)


@pytest.mark.parametrize("layout", ["blocks", "planes"])
def test_quantized_files_are_decoded(
    tmp_path: Path, foreign: Callable[[str], type], layout: str
) -> None:
    form, truth = quantize(network().state_dict(), layout)
    form["meta"]["klass"] = foreign("diffq.diffq.DiffQuantizer")
    assert len(form["quantized"]) > 3
    assert len(form["others"]) > 3
    state = read_package(save(tmp_path / "x.th", foreign("demucs.hdemucs.HDemucs"), form)).state
    assert list(state) == list(truth)
    for key, value in truth.items():
        torch.testing.assert_close(state[key], value, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("layout", ["cython", "torch"])
def test_files_that_diffq_itself_wrote_are_decoded(layout: str) -> None:
    package = read_package(reference.DATA / f"quantized_{layout}.th")
    built = build_network(package.network, **package.hyperparameters).eval()
    load_state(built, package.state, where=layout)
    with torch.inference_mode():
        ours = reference.some(built(reference.mixture(3000)))
    theirs = np.load(reference.DATA / "reference_quantized.npz")["estimates"]
    assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)


def flattened(node: Any, tensors: dict[str, Tensor]) -> Any:
    """Take the tensors out of containers, as the files of 2026 do."""
    if isinstance(node, Tensor):
        tensors[str(len(tensors))] = node.clone()
        return {"_tensor": str(len(tensors) - 1)}
    if isinstance(node, dict):
        return {"_dict": [[key, flattened(item, tensors)] for key, item in node.items()]}
    if isinstance(node, list | tuple):
        kind = "_list" if isinstance(node, list) else "_tuple"
        return {kind: [flattened(item, tensors) for item in node]}
    return node


@pytest.mark.parametrize("quantized", [False, True])
def test_safetensors_with_arguments_are_read(tmp_path: Path, quantized: bool) -> None:
    plain = {key: value.clone() for key, value in network().state_dict().items()}
    fraction = {"_type": "fraction", "numerator": 39, "denominator": 5}
    metadata = {
        "klass": "demucs.hdemucs.HDemucs",
        "args": "[]",
        "kwargs": json.dumps({**SMALL, "segment": fraction}),
    }
    tensors = plain
    if quantized:
        form, plain = quantize(plain, "blocks")
        tensors = {}
        metadata["structure"] = json.dumps(flattened(form, tensors))
    path = tmp_path / "955717e8.safetensors"
    save_file(tensors, path, metadata=metadata)
    package = read_package(path)
    assert is_package(path)
    assert package.segment == 7.8
    assert package.hyperparameters["n_fft"] == 512
    for key, value in plain.items():
        torch.testing.assert_close(package.state[key], value, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 2048, 5000])
@pytest.mark.parametrize("layout", ["blocks", "planes"])
def test_unpacking_undoes_packing(count: int, layout: str) -> None:
    numbers = torch.randint(0, 2**11, (count,), generator=torch.Generator().manual_seed(count))
    assert unpack(pack(numbers, 11, layout), count).equal(numbers)


def test_damaged_quantized_states_are_refused() -> None:
    own = network().state_dict()
    shapes = {key: value.shape for key, value in own.items()}
    for change in (
        {"quantized": []},
        {"others": quantize(own, "planes")[0]["others"] * 2},
        {"quantized": [(None, (0.0, 1.0), torch.zeros(1, 1, dtype=torch.int16))]},
        {"meta": {"init_kwargs": {"min_size": 1e-3}, "packed": True}},
        {"meta": {"init_kwargs": {}, "packed": False}},
    ):
        with pytest.raises(ModelError, match=r"quantised weights|packed DiffQ"):
            dequantize({**quantize(own, "planes")[0], **change}, shapes)


class Hostile:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("field", ["klass", "args", "kwargs", "state", "training_args"])
def test_hostile_files_are_refused_and_not_run(
    tmp_path: Path, foreign: Callable[[str], type], field: str
) -> None:
    proof = tmp_path / "proof"
    klass = foreign("demucs.hdemucs.HDemucs")
    path = save(tmp_path / "x.th", klass, {}, **{field: {"x": Hostile(proof)}})
    with pytest.raises(ModelError, match=r"asks to run '(posix|nt)\.mkdir'"):
        read_package(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("demucs.tasnet.ConvTasNet", "asks to run 'demucs.tasnet.ConvTasNet'"),
        ("diffq.diffq.DiffQuantizer", "is of the class 'diffq.diffq.DiffQuantizer'"),
    ],
)
def test_other_classes_are_named(
    tmp_path: Path, foreign: Callable[[str], type], name: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        read_package(save(tmp_path / "x.th", foreign(name), {}))


class Endless:
    """A fraction that takes forever to count out."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Fraction, ("1e999999999",)


def test_endless_fractions_are_refused(tmp_path: Path, foreign: Callable[[str], type]) -> None:
    klass = foreign("demucs.hdemucs.HDemucs")
    with pytest.raises(ModelError, match="not a small fraction"):
        read_package(save(tmp_path / "x.th", klass, {}, args=[Endless()]))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"klass": 3}, ModelError, "no Demucs file"),
        ({"args": (STEMS, 2)}, ModelError, "2 arguments have no name"),
        ({"state": 3}, ModelError, "no Demucs file"),
        ({"kwargs": SMALL | {"wiener_residual": True}}, ConfigError, "wiener_residual"),
    ],
)
def test_files_that_are_no_packages(
    tmp_path: Path,
    foreign: Callable[[str], type],
    change: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    klass = foreign("demucs.hdemucs.HDemucs")
    with pytest.raises(error, match=message) as caught:
        read_package(save(tmp_path / "x.th", klass, {}, **change))
    assert "\n" not in str(caught.value)
    torch.save([1, 2], tmp_path / "x.th")
    with pytest.raises(ModelError, match="no Demucs file"):
        read_package(tmp_path / "x.th")


def test_metadata_that_cant_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    base = {"klass": "demucs.hdemucs.HDemucs", "args": "[]", "kwargs": "{}"}
    for change in (
        {"args": "["},
        {"structure": '{"_tensor": "gone"}'},
        {"structure": '{"_call": "os.mkdir"}'},
        {"kwargs": '{"x": {"_type": "fraction", "numerator": 1, "denominator": 0}}'},
    ):
        save_file({"a": torch.ones(1)}, path, metadata=base | change)
        with pytest.raises(ModelError, match="metadata that can't be read"):
            read_package(path)
    save_file({"a": torch.ones(1)}, path, metadata=base | {"klass": "os.mkdir"})
    with pytest.raises(ModelError, match=r"of the class 'os\.mkdir'"):
        read_package(path)
    save_file({"a": torch.ones(1)}, path)
    assert not is_package(path)
