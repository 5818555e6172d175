"""Models of other programs: what is understood from their files, and what is refused."""

import hashlib
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from separator.checkpoints import mdx_onnx
from separator.checkpoints.families import FAMILIES
from separator.checkpoints.foreign import read_bag, read_foreign
from separator.checkpoints.states import READERS, load_state, read_state
from separator.errors import ConfigError, ModelError, SeparatorError
from separator.networks import build_network
from separator.zoo.adding import add_path
from separator.zoo.cards import Card, Ensemble
from separator.zoo.load import load_network
from separator.zoo.members import find_members
from separator.zoo.search import find_card

State = dict[str, Tensor]
FOUR = ("drums", "bass", "other", "vocals")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path / "cache"))


def network(name: str, **parameters: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, **parameters).eval()


def same(card: Any, source: nn.Module) -> None:
    """Make sure that the card's network is the source."""
    assert isinstance(card, Card)
    loaded = load_network(card).state_dict()
    assert all(loaded[key].equal(value) for key, value in source.state_dict().items())
    mixture = torch.randn(1, source.channels, 3000)
    with torch.inference_mode():
        torch.testing.assert_close(load_network(card)(mixture), source(mixture))


SCNET: dict[str, Any] = {
    "dims": (4, 8, 12),
    "n_fft": 512,
    "hop_length": 128,
    "conv_depths": (2, 1, 1),
    "dual_path_layers": 2,
}


def write_yaml(folder: Path, **sections: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


# Checkpoints with and without a file of settings


def test_the_best_weights_of_an_scnet_file(tmp_path: Path) -> None:
    source = network("scnet", stems=FOUR, dims=(4, 8, 12), dual_path_layers=2)
    state = {f"module.{key}": value for key, value in source.state_dict().items()}
    last = {key: torch.zeros_like(value) for key, value in state.items()}
    path = tmp_path / "scnet.th"
    torch.save({"state": last, "best_state": state, "optimizer": {"lr": 1e-4}}, path)
    same(add_path(path), source)
    card = find_card("scnet")
    assert (card.stems, card.segment, card.weights.format) == (FOUR, 11.0, "msst")


@pytest.mark.parametrize("mask_hidden", [0, 64])
def test_scnet_with_its_settings(tmp_path: Path, mask_hidden: int) -> None:
    ratios = [0.2, 0.3, 0.5]
    masks = {"band_ratios": ratios, "mask_hidden": mask_hidden}
    source = network("scnet", stems=("a", "b"), **masks, **SCNET)
    torch.save(source.state_dict(), tmp_path / "x.ckpt")
    config = write_yaml(
        tmp_path,
        audio={"chunk_size": 44100, "sample_rate": 44100},
        training={"instruments": ["a", "b"]},
        model={
            "nfft": 512,
            "hop_size": 128,
            "win_size": 512,
            "normalized": True,
            "band_SR": ratios,
            "dims": [9, 9],
            "num_dplayer": 9,
            "band_stride": [1, 4, 16],
        },
        inference={"num_overlap": 4, "normalize": True},
    )
    card = add_path(tmp_path / "x.ckpt", config)
    same(card, source)
    assert (card.normalization, card.overlap, card.segment) == ("track", 0.75, 1.0)


@pytest.mark.parametrize("target", [None, "similarity"])
def test_mdx23c_with_its_settings(tmp_path: Path, target: str | None) -> None:
    stems = (target,) if target else ("similarity", "difference")
    sizes = {"n_fft": 256, "hop_length": 64, "bins": 128, "subbands": 2, "scales": 2}
    source = network("tfc_tdf", stems=stems, width=4, growth=2, **sizes)
    torch.save(source.state_dict(), tmp_path / "x.ckpt")
    config = write_yaml(
        tmp_path,
        audio={"chunk_size": 8820, "n_fft": 256, "hop_length": 64, "dim_f": 128, "dim_t": 9},
        training={"instruments": ["similarity", "difference"], "target_instrument": target},
        model={"act": "gelu", "norm": "InstanceNorm", "num_subbands": 7, "growth": 1},
    )
    card = add_path(tmp_path / "x.ckpt", config)
    same(card, source)
    assert card.residual == ("difference" if target else None)


@pytest.mark.parametrize("section", ["model", "kwargs"])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_bandit_with_its_settings(tmp_path: Path, section: str, suffix: str) -> None:
    stems = ("music", "speech")
    sizes = {"band_count": 8, "n_fft": 2048, "modules": 1, "dim": 4, "rnn_hidden": 4}
    source = network("bsrnn", stems=stems, mask_hidden=4, rnn="gru", bands="bark", **sizes)
    extra = {"stft.window": torch.ones(2048), "bsrnn.band_split.freq_weights/0": torch.ones(3)}
    state = {f"bsrnn.{key}": value for key, value in source.state_dict().items()} | extra
    path = tmp_path / f"x{suffix}"
    if suffix == ".ckpt":
        wrapped = {f"model.{key}": value for key, value in state.items()}
        torch.save({"state_dict": wrapped, "epoch": 3}, path)
    else:
        save_file(state, path)
    config = write_yaml(
        tmp_path,
        audio={"chunk_size": 44100},
        training={"instruments": ["dialogue", "music"]},
        **{section: {"band_type": "bark", "n_fft": 2048, "rnn_type": "LSTM", "in_channel": 1}},
    )
    same(add_path(path, config), source)
    assert find_card("x").stems == stems  # as the keys name them
    assert find_card("x").weights.format == "bandit"


BANDIT = {"band_count": 8, "n_fft": 256, "hop_length": 64, "modules": 1, "dim": 4, "rnn_hidden": 4}


def bandit(folder: Path, **model: Any) -> tuple[Path, Path, nn.Module]:
    """Write a Bandit and its YAML, as its authors leave them."""
    source = network("bsrnn", stems=("music", "speech"), mask_hidden=4, bands="bark", **BANDIT)
    state = {f"bsrnn.{key}": value for key, value in source.state_dict().items()}
    torch.save({"state_dict": state}, folder / "x.ckpt")
    settings = {"band_type": "bark", "n_fft": 256, "hop_length": 64, "win_length": 256} | model
    training = {"instruments": ["music", "speech"]}
    config = write_yaml(folder, audio={"chunk_size": 44100}, training=training, model=settings)
    return folder / "x.ckpt", config, source


def test_every_setting_of_a_bandit_counts_or_is_refused(tmp_path: Path) -> None:
    family = next(family for family in FAMILIES if family.network == "bsrnn")
    mixture = torch.randn(1, 2, 3000)
    path, config, source = bandit(tmp_path, **family.fixed)
    model = read_foreign(path, config)
    plain = source(mixture)
    for key, value in {"pad_mode": "reflect", "win_length": 200, "hop_length": 50}.items():
        path, config, _ = bandit(tmp_path, **{key: value})
        model = read_foreign(path, config)
        other = build_network(
            "bsrnn", stems=model.stems, sample_rate=44100, channels=2, **model.parameters
        ).eval()
        other.load_state_dict(source.state_dict())
        assert not torch.allclose(other(mixture), plain, atol=1e-4), key
    for key, value in family.fixed.items():
        path, config, _ = bandit(tmp_path, **{key: "other" if value is None else not value})
        with pytest.raises(ConfigError, match=f"model: '{key}: .*' can't be run; bsrnn has"):
            read_foreign(path, config)


@pytest.mark.parametrize("kind", ["bandit", "bandit_v2", "banquet"])
def test_a_kind_of_the_same_shapes_is_refused(tmp_path: Path, kind: str) -> None:
    path, config, _ = bandit(tmp_path)
    text = config.read_text().replace("training:", f"training:\n  model_type: {kind}")
    config.write_text(text)
    if kind == "banquet":
        with pytest.raises(ConfigError, match=r"model_type: banquet' can't be run"):
            read_foreign(path, config)
    else:
        assert read_foreign(path, config).network == "bsrnn"


@pytest.mark.parametrize("zero_dc", [None, False, True])
def test_a_roformer_is_read_as_its_program_runs_it(tmp_path: Path, zero_dc: bool | None) -> None:
    """Cut as there, one segment at a time; zero_dc is true there unless the YAML says otherwise."""
    sizes = {"dim": 8, "depth": 1, "heads": 2, "dim_head": 4, "hop_length": 512}
    source = network("bs_roformer", stems=("vocals",), **sizes)
    torch.save(source.state_dict(), tmp_path / "x.ckpt")
    said = {} if zero_dc is None else {"zero_dc": zero_dc}
    for overlaps in (1, 4):
        config = write_yaml(
            tmp_path,
            audio={"chunk_size": 88200},
            training={"instruments": ["vocals", "other"], "target_instrument": "vocals"},
            model={"stft_hop_length": 512} | said,
            inference={"num_overlap": overlaps},
        )
        model = read_foreign(tmp_path / "x.ckpt", config)
        assert (model.recipe, model.overlap) == ("msst", 1 - 1 / overlaps)
        assert model.parameters["zero_dc"] is (zero_dc is not False)
        assert ("doesn't set zero_dc" in str(model.note)) == (zero_dc is None)
    assert add_path(tmp_path / "x.ckpt", config, recipe="default").recipe == "default"
    with pytest.raises(ConfigError, match="recipe"):
        add_path(tmp_path / "x.ckpt", config, name="y", recipe="demix")


def test_demucs_with_its_settings(tmp_path: Path) -> None:
    sizes = {"hidden_channels": 8, "depth": 2, "n_fft": 256, "segment": 0.1}
    source = network(
        "htdemucs",
        stems=("vocals", "other"),
        transformer_heads=2,
        transformer_layers=1,
        bottom_channels=8,
        **sizes,
    )
    torch.save(source.state_dict(), tmp_path / "x.ckpt")
    config = write_yaml(
        tmp_path,
        audio={"chunk_size": 4410},
        training={"instruments": ["Vocals", "other"], "segment": 0.1, "samplerate": 44100},
        model="htdemucs",
        htdemucs={
            "channels": 8,
            "depth": 2,
            "nfft": 256,
            "t_heads": 2,
            "t_layers": 1,
            "bottom_channels": 8,
            "num_subbands": 1,
            "multi_freqs": [],
        },
    )
    card = add_path(tmp_path / "x.ckpt", config)
    same(card, source)
    assert (card.recipe, card.segment) == ("msst-flat", 0.1)
    text = config.read_text().replace("model: htdemucs", "model: tasnet")
    config.write_text(text)
    with pytest.raises(ConfigError, match="'model: tasnet' needs a section of that name; known"):
        read_foreign(tmp_path / "x.ckpt", config)


def torchaudio_names(state: State) -> State:
    """Rename the parameters of a hybrid Demucs as torchaudio does, and add those it never uses."""
    renamed = {
        re.sub(
            r"^(t?)((?:en|de)coder)", lambda m: f"{'time' if m[1] else 'freq'}_{m[2]}", key
        ): value
        for key, value in state.items()
    }
    return {**renamed, "time_encoder.1.norm1.weight": torch.ones(4)}


def test_a_file_of_torchaudio(tmp_path: Path) -> None:
    source = network("hdemucs", stems=FOUR, hidden_channels=4, depth=2, n_fft=128)
    torch.save(torchaudio_names(source.state_dict()), tmp_path / "x.pt")
    card = add_path(tmp_path / "x.pt")
    same(card, source)
    assert card.weights.format == "torchaudio"
    renamed = add_path(tmp_path / "x.pt", stems=("a", "b", "c", "d"), name="y")
    assert renamed.stems == ("a", "b", "c", "d")
    with pytest.raises(ConfigError, match="has 4 stems, named are 2"):
        read_foreign(tmp_path / "x.pt", stems=("a", "b"))


def test_a_conv_tasnet_of_torchaudio(tmp_path: Path) -> None:
    sizes = {"features": 6, "dim": 4, "hidden": 5}
    source = network("conv_tasnet", stems=("one", "two"), **sizes)
    torch.save(source.state_dict(), tmp_path / "x.pt")
    model = read_foreign(tmp_path / "x.pt", stems=("one", "two"))
    assert (model.network, model.sample_rate, model.channels) == ("conv_tasnet", 8000, 1)
    card = add_path(tmp_path / "x.pt", stems=("one", "two"))
    assert card.sample_rate == 8000
    assert sizes.items() <= card.parameters.items()
    with pytest.raises(ConfigError, match="nothing names them"):
        read_foreign(tmp_path / "x.pt")
    torch.save(
        network("conv_tasnet", stems=("a",), layers=2, **sizes).state_dict(), tmp_path / "y.pt"
    )
    with pytest.raises(ModelError, match="6 blocks, and nothing tells how they are stacked"):
        read_foreign(tmp_path / "y.pt", stems=("a",))


def test_shapes_alone_may_not_be_enough(tmp_path: Path) -> None:
    sizes = {"dim": 8, "depth": 1, "heads": 2, "dim_head": 4, "hop_length": 512, "zero_dc": True}
    source = network("bs_roformer", stems=("a", "b"), **sizes)
    torch.save(source.state_dict(), tmp_path / "x.pt")
    with pytest.raises(ConfigError, match=r"has 2 stems, and nothing names them.*--stems"):
        read_foreign(tmp_path / "x.pt")
    same(add_path(tmp_path / "x.pt", stems=("a", "b")), source)


# Demucs


def package(source: nn.Module, path: Path, segment: float = 7.8) -> Path:
    """Write a hybrid Demucs as a safetensors file with its arguments."""
    arguments = {
        "sources": list(source.stems),
        "channels": 4,
        "depth": 2,
        "nfft": 128,
        "segment": segment,
    }
    metadata = {"klass": "demucs.hdemucs.HDemucs", "args": "[]", "kwargs": json.dumps(arguments)}
    tensors = {key: value.half().clone() for key, value in source.state_dict().items()}
    save_file(tensors, path, metadata=metadata)
    return path


def hybrid(seed: int = 0) -> nn.Module:
    source = network("hdemucs", stems=("drums", "vocals"), hidden_channels=4, depth=2, n_fft=128)
    for parameter in source.parameters():
        parameter.data = (parameter.data + seed).half().float()
    return source


def test_a_file_of_demucs(tmp_path: Path) -> None:
    source = hybrid()
    card = add_path(package(source, tmp_path / "955717e8.safetensors"), copy=True)
    same(card, source)
    assert (card.normalization, card.recipe, card.segment) == ("track", "demucs", 7.8)
    assert (card.weights.format, card.weights.file) == ("demucs", "weights/955717e8.safetensors")
    assert read_foreign(package(source, tmp_path / "x.safetensors"), stems=("a", "b")).stems == (
        "a",
        "b",
    )
    with pytest.raises(ConfigError, match="has the stems drums, vocals; a can't"):
        read_foreign(tmp_path / "x.safetensors", stems=("a",))


def test_a_file_of_demucs_knows_its_own_hyperparameters(tmp_path: Path) -> None:
    source = hybrid()
    card = add_path(package(source, tmp_path / "x.safetensors"))
    assert isinstance(card, Card)
    same(card.model_copy(update={"parameters": {"depth": 5}}), source)
    with pytest.raises(ModelError, match="holds the network 'hdemucs', 'x' says 'htdemucs'"):
        load_network(card.model_copy(update={"network": "htdemucs"}))


def test_a_bag_of_demucs_files(tmp_path: Path) -> None:
    for seed, signature in enumerate(("aaaa1111", "bbbb2222")):
        package(hybrid(seed), tmp_path / f"{signature}.safetensors")
    bag = {"models": ["aaaa1111", "bbbb2222"], "weights": [[1, 0.0], [0.5, 2.0]], "segment": 44}
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(bag))
    card = add_path(path)
    assert isinstance(card, Ensemble)
    assert [member.weights for member in card.members] == [
        {"drums": 1.0},
        {"drums": 0.5, "vocals": 2.0},
    ]
    assert {member.segment for member in card.members} == {44.0}
    models = find_members(find_card("two")).models
    assert [model.name for model in models] == ["two-aaaa1111", "two-bbbb2222"]
    for seed, model in enumerate(models):
        same(model, hybrid(seed))
    with pytest.raises(ConfigError, match="There is a model 'two'"):
        add_path(path)


@pytest.mark.parametrize(
    ("bag", "error", "message"),
    [
        ({"models": []}, ConfigError, "models"),
        ({"models": ["x"], "model": 1}, ConfigError, "unknown key 'model'. Did you mean 'models'"),
        ({"models": ["gone"]}, ModelError, "names the model 'gone', but beside it there is no"),
        ({"models": ["../x"]}, ModelError, "there is no file"),
        ({"models": ["x"], "weights": []}, ConfigError, "'weights' has 0 rows for 1 models"),
        ({"models": ["x"], "weights": [[-1.0]]}, ConfigError, "weights.0.0"),
    ],
)
def test_mistakes_in_a_bag(
    tmp_path: Path, bag: dict[str, Any], error: type[Exception], message: str
) -> None:
    package(hybrid(), tmp_path / "x.safetensors")
    (tmp_path / "bag.yaml").write_text(yaml.safe_dump(bag))
    with pytest.raises(error) as caught:
        read_bag(tmp_path / "bag.yaml")
    assert message in str(caught.value)


def test_a_bags_row_must_fit_the_stems(tmp_path: Path) -> None:
    package(hybrid(), tmp_path / "x.safetensors")
    (tmp_path / "bag.yaml").write_text(yaml.safe_dump({"models": ["x"], "weights": [[1.0]]}))
    with pytest.raises(ConfigError, match="Row 1 of the bag's weights has 1 of them, 'bag-x' 2"):
        add_path(tmp_path / "bag.yaml")


# Open-Unmix


def unmix_folder(folder: Path, source: nn.Module) -> Path:
    """Write a folder as Open-Unmix' training does, with what files of 2019 also held."""
    folder.mkdir()
    settings = {"sample_rate": 44100.0, "nfft": 256, "nhop": 64, "nb_channels": 2}
    (folder / "separator.json").write_text(json.dumps(settings))
    for stem in source.stems:
        prefix = f"target_models.{stem}."
        state = {
            key.removeprefix(prefix): value
            for key, value in source.state_dict().items()
            if key.startswith(prefix)
        }
        old = {"stft.window": torch.ones(256), "sample_rate": torch.tensor(44100)}
        torch.save(state | old, folder / f"{stem}-0123abcd.pth")
        (folder / f"{stem}.json").write_text("{}")
    return folder


def unmix(*stems: str) -> nn.Module:
    return network("open_unmix", stems=stems, n_fft=256, hop_length=64, hidden_size=8, max_bin=90)


def test_a_folder_of_open_unmix(tmp_path: Path) -> None:
    source = unmix("drums", "vocals")
    same(add_path(unmix_folder(tmp_path / "mine", source)), source)
    assert find_card("mine").stems == ("drums", "vocals")


def test_a_single_file_of_open_unmix(tmp_path: Path) -> None:
    unmix_folder(tmp_path / "mine", unmix("vocals"))
    file = tmp_path / "mine" / "vocals-0123abcd.pth"
    card = add_path(file)
    assert (card.stems, card.weights.format) == (("vocals",), "open_unmix")
    loaded = load_network(card)
    assert loaded.state_dict().keys() == unmix("vocals").state_dict().keys()
    assert add_path(file, stems=("voice",), name="other").stems == ("voice",)


def test_folders_that_arent_open_unmix(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    for content, error, message in (
        (None, ModelError, "is no folder of Open-Unmix"),
        ("{", ConfigError, "is not valid JSON"),
        ("[]", ConfigError, "holds list, expected a mapping"),
        ('{"nhop": 0}', ConfigError, "separator.json: 'nhop'"),
        ("{}", ModelError, "holds no stem"),
    ):
        if content is not None:
            (folder / "separator.json").write_text(content)
        with pytest.raises(error) as caught:
            add_path(folder)
        assert message in str(caught.value)
    (folder / "vocals.json").write_text("{}")
    torch.save({"fc1.weight": torch.ones(2, 2)}, folder / "vocals.pth")
    with pytest.raises(ModelError, match="no network of Open-Unmix"):
        add_path(folder)


# Ultimate Vocal Remover


def test_an_onnx_file_is_known_by_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "Kim_Vocal_2.onnx"
    path.write_bytes(b"graph")
    with pytest.raises(ModelError, match="is no public MDX-Net model"):
        add_path(path)
    line = f"{hashlib.md5(b'graph').hexdigest()} 7680 3072 256 1.009 vocals"
    monkeypatch.setattr(mdx_onnx, "PUBLIC_GRAPHS", line)
    card = add_path(path)
    assert isinstance(card, Card)
    assert (card.stems, card.weights.format) == (("vocals",), "onnx")
    sizes = {"n_fft": 7680, "bins": 3072, "frames": 256, "compensate": 1.009, "graph_bytes": 5}
    assert card.parameters == sizes
    assert bytes(load_network(card).state_dict()["graph"].tolist()) == b"graph"


# Nothing in any of the formats is run


class Hostile:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("format", [format for format in READERS if format != "onnx"])
@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_files_are_refused_and_not_run(tmp_path: Path, format: str, zipped: bool) -> None:
    proof, path = tmp_path / "proof", tmp_path / "x.th"
    content = {"state_dict": {}, "x": Hostile(proof)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"asks to run|not a safetensors file"):
        read_state(path, format)
    assert not proof.exists()


def test_a_hostile_file_in_the_place_of_an_onnx_graph_is_not_run(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    proof, path = tmp_path / "proof", tmp_path / "x.onnx"
    path.write_bytes(pickle.dumps(Hostile(proof)))
    with pytest.raises(ModelError, match="is no public MDX-Net"):
        add_path(path)
    state = read_state(path, "onnx")
    sizes = {"graph_bytes": len(state["graph"]), "n_fft": 64, "hop_length": 16, "bins": 16}
    network = build_network("mdx_onnx", stems=["vocals"], frames=16, **sizes)
    load_state(network, state, where="x.onnx")
    with pytest.raises(ModelError, match="damaged or can't be run"):
        network(torch.zeros(1, 2, 100))
    assert not proof.exists()
    pickle.loads(path.read_bytes())
    assert proof.exists(), "it would have run"


def test_hostile_files_cant_be_added(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    folder = unmix_folder(tmp_path / "mine", unmix("vocals"))
    package(hybrid(), tmp_path / "x.safetensors")
    (tmp_path / "bag.yaml").write_text(yaml.safe_dump({"models": ["evil"]}))
    for name in ("evil.ckpt", "evil.th", "evil.pth", "mine/vocals-0123abcd.pth"):
        torch.save({"fc1.weight": Hostile(proof)}, tmp_path / name)
    for name in ("evil.ckpt", "evil.th", "evil.pth", "bag.yaml"):
        with pytest.raises(ModelError, match=r"asks to run '(posix|nt)\.mkdir'"):
            add_path(tmp_path / name)
    with pytest.raises(SeparatorError, match="asks to run"):
        add_path(folder)
    assert not proof.exists()
    assert not list(tmp_path.glob("models/*.yaml"))


def test_paths_that_arent_there(tmp_path: Path) -> None:
    for name in ("x.th", "x.ckpt", "x.yaml", "x.safetensors"):
        with pytest.raises(SeparatorError, match=r"(?i)can't read"):
            add_path(tmp_path / name)


def test_the_command_adds_whatever_it_is(cli: Any, tmp_path: Path) -> None:
    package(hybrid(), Path("aaaa1111.safetensors"))
    Path("bag.yaml").write_text(yaml.safe_dump({"models": ["aaaa1111"]}))
    added = cli("models", "add", "bag.yaml", "--name", "mine")
    assert "Added 'mine' (ensemble): drums, vocals." in added.stderr
    unmix_folder(Path("folder"), unmix("drums", "vocals"))
    assert "folder.yaml" in cli("models", "add", "folder").stdout
    source = network("bs_roformer", stems=("a",), dim=8, depth=1, heads=2, dim_head=4)
    torch.save(source.state_dict(), "x.pt")
    assert "--stems" in cli("models", "add", "x.pt", code=2).stderr
    assert "x.yaml" in cli("models", "add", "x.pt", "--stems", "voice").stdout
    assert "comes first" in cli("models", "add", "bag.yaml", "bag.yaml", code=2).stderr
