"""Models added from uploads: every format, in whatever order and folders the files arrive."""

import errno
import hashlib
import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
import yaml
from conftest import make_signal
from test_foreign import hybrid, package, unmix, unmix_folder

from separator.api import Separator
from separator.checkpoints import mdx_onnx
from separator.errors import ConfigError, ModelError
from separator.web.adding import add_files
from separator.web.catalog import Catalog
from separator.zoo import adding
from separator.zoo.adding import add_path
from separator.zoo.cards import AnyCard, Ensemble
from separator.zoo.load import load_network
from separator.zoo.removing import can_be_removed
from separator.zoo.search import find_card
from separator.zoo.writing import write_card

RATE = 44100
STEMS = ("drums", "bass", "other", "vocals")
SHEET = {
    "audio": {"chunk_size": RATE},
    "model": {"dim": 8, "depth": 1, "heads": 1, "dim_head": 8, "mlp_expansion_factor": 1}
    | {"stft_n_fft": 512, "stft_hop_length": 256, "freqs_per_bands": (1, 8, 56, 192)},
    "training": {"instruments": list(STEMS)},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the user's own models."""
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "models"


@pytest.fixture
def uploads(tmp_path: Path):
    """A function that puts each file into a folder of its own, as uploads lie."""

    def put(*files: Path) -> list[Path]:
        return [Path(shutil.move(file, mkdtemp(dir=tmp_path))) for file in files]

    return put


def write_sheet(path: Path) -> Path:
    path.write_text(yaml.dump(SHEET))  # with the tuple's tag, as most such files have it
    return path


def forget(uploaded: Sequence[Path]) -> None:
    """Delete uploads, as the app does after a time."""
    for path in uploaded:
        path.unlink()


def works(card: AnyCard) -> None:
    """Make sure that a model separates."""
    stems = Separator(card, device="cpu").separate(make_signal(RATE // 4), RATE)
    assert tuple(stems) == card.stems


def test_a_checkpoint_and_its_yaml(tiny_models, tmp_path, uploads, folder):
    weights = tmp_path / "My Model.safetensors"
    shutil.copy(tiny_models / "tiny.safetensors", weights)
    files = uploads(write_sheet(tmp_path / "config.yaml"), weights)
    card = add_files(files)
    forget(files)
    assert (card.name, card.stems) == ("my-model", STEMS)
    assert card.path == folder / "my-model.yaml"
    works(find_card("my-model"))


def test_a_file_of_demucs_alone(tmp_path, uploads):
    files = uploads(package(hybrid(), tmp_path / "955717e8.safetensors"))
    card = add_files(files, name="mine")
    forget(files)
    assert (card.name, card.stems) == ("mine", ("drums", "vocals"))
    works(card)


@pytest.mark.parametrize("count", [1, 2])
def test_a_bag_of_demucs_files(tmp_path, uploads, count):
    names = ["aaaa1111", "bbbb2222"][:count]
    weights = [package(hybrid(), tmp_path / f"{name}.safetensors") for name in names]
    (tmp_path / "bag.yaml").write_text(yaml.safe_dump({"models": names}))
    files = uploads(*weights, tmp_path / "bag.yaml")
    card = add_files(files)
    forget(files)
    assert isinstance(card, Ensemble)
    assert [member.model for member in card.members] == [f"bag-{name}" for name in names]
    works(card)


def evil(path: Path) -> Path:
    torch.save({"state_dict": {}, "x": Bomb(path.with_suffix(".proof"))}, path)
    return path


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("later", ["evil", "weights", "disk"])
def test_a_bag_is_added_whole_or_not_at_all(tmp_path, folder, monkeypatch, copy, later):
    names = ["aaaa1111", "bbbb2222"]
    for name in names:
        package(hybrid(), tmp_path / f"{name}.safetensors")
    bag = {"models": names}
    if later == "evil":
        names[1] = evil(tmp_path / "bbbb2222.th").stem
        (tmp_path / "bbbb2222.safetensors").unlink()
    if later == "weights":
        bag["weights"] = [[1.0, 1.0], [1.0]]  # two stems, one weight
    if later == "disk":
        monkeypatch.setattr(adding, "write_card", full_after(2))
    (tmp_path / "bag.yaml").write_text(yaml.safe_dump(bag))
    before = sorted(tmp_path.iterdir())
    with pytest.raises((ModelError, ConfigError), match=r"asks to run|Row 2|No space left"):
        add_path(tmp_path / "bag.yaml", copy=copy)
    assert sorted(path for path in tmp_path.iterdir() if path != folder) == before
    assert not [path for path in folder.rglob("*") if path.is_file()]


def full_after(cards: int):
    """Return a `write_card` for a disk that has room for so many cards."""
    left = iter(range(cards))

    def write(card: AnyCard, folder: Path) -> Path:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_card(card, folder)

    return write


@pytest.mark.parametrize("kind", ["checkpoint", "folder"])
def test_no_weights_stay_without_their_card(tmp_path, folder, monkeypatch, kind):
    source = tmp_path / "x"
    if kind == "folder":
        unmix_folder(source, unmix("vocals"))
    else:
        source = package(hybrid(), tmp_path / "x.safetensors")
    monkeypatch.setattr(adding, "write_card", full_after(0))
    with pytest.raises(ModelError, match=r"Can't write to .*No space left"):
        add_path(source, copy=True)
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_a_bad_card_hides_no_other_and_is_named_until_it_is_mended(tiny_models, folder):
    catalog = Catalog()
    assert not catalog.problems()
    shutil.copytree(tiny_models, folder)
    text = (folder / "tiny.yaml").read_text()
    (folder / "half.yaml").write_text(text[: len(text) // 2])
    alone = "name: alone\ndescription: x\nstems: [a]\nmembers: [{model: gone}]\nlicence: MIT\n"
    (folder / "alone.yaml").write_text(alone)
    assert catalog.find("tiny") and catalog.find("pocket")
    half, lonely = catalog.problems()
    assert "half.yaml" in half
    assert "alone" in lonely and "gone" in lonely
    (folder / "half.yaml").write_text(text.replace("name: tiny", "name: half"))
    assert catalog.find("half").name == "half"
    assert catalog.problems() == [lonely]


def test_the_files_of_an_open_unmix_folder(tmp_path, uploads):
    source = unmix("drums", "vocals")
    files = uploads(*unmix_folder(tmp_path / "x", source).iterdir())
    card = add_files(files)
    forget(files)
    assert (card.name, card.stems) == ("open-unmix", ("drums", "vocals"))
    loaded = load_network(card).state_dict()
    assert all(loaded[key].equal(value) for key, value in source.state_dict().items())
    assert add_files(uploads(*unmix_folder(tmp_path / "y", source).iterdir()), name="y")


def test_a_single_network_takes_the_name_of_its_stem(tmp_path, uploads):
    unmix_folder(tmp_path / "x", unmix("vocals"))
    files = uploads(tmp_path / "x" / "vocals-0123abcd.pth")
    assert add_files(files, stems=["voice"]).stems == ("voice",)


def test_an_onnx_file(tmp_path, uploads, monkeypatch):
    (tmp_path / "Kim.onnx").write_bytes(b"graph")
    line = f"{hashlib.md5(b'graph').hexdigest()} 7680 3072 256 1.009 vocals"
    monkeypatch.setattr(mdx_onnx, "PUBLIC_GRAPHS", line)
    card = add_files(uploads(tmp_path / "Kim.onnx"))
    assert (card.name, card.stems) == ("kim", ("vocals",))


class Bomb:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".th", ".safetensors", ".onnx"])
@pytest.mark.parametrize("with_sheet", [True, False])
@pytest.mark.parametrize("by_torch", [True, False])
def test_hostile_files_are_refused_in_one_line(tmp_path, folder, suffix, with_sheet, by_torch):
    proof, path = tmp_path / "proof", tmp_path / f"evil{suffix}"
    content = {"state_dict": {}, "x": Bomb(proof)}
    if by_torch:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    files = [path, write_sheet(tmp_path / "evil.yaml")] if with_sheet else [path]
    with pytest.raises((ModelError, ConfigError)) as caught:
        add_files(files)
    assert not proof.exists() and not folder.exists()
    assert "evil" in str(caught.value)
    assert "\n" not in str(caught.value) and str(tmp_path.parent) not in str(caught.value)
    assert "separator-add-" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "0 files of weights"),
        (("a.yaml",), "0 files of weights"),
        (("a.ckpt", "b.ckpt"), "2 files of weights"),
        (("a.yaml", "b.yml", "a.ckpt"), "2 files of settings"),
        (("a.ckpt", "x/a.ckpt"), "Two files are called 'a.ckpt'"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("model: {}")
    with pytest.raises(ConfigError, match=message):
        add_files([tmp_path / name for name in names])
    for name in names:
        assert (tmp_path / name).read_text() == "model: {}"


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b", ".hidden", "pocket"])
def test_no_model_is_added_outside_its_folder_or_over_another(tmp_path, folder, name):
    path = package(hybrid(), tmp_path / "x.safetensors")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"name|There is a model") as caught:
        add_files([path], name=name)
    assert sorted(tmp_path.rglob("*")) == before
    assert str(folder) not in str(caught.value)


def test_what_was_added_can_be_deleted_but_not_what_an_ensemble_needs(tmp_path, folder):
    package(hybrid(), tmp_path / "aaaa1111.safetensors")
    (tmp_path / "bag.yaml").write_text(yaml.safe_dump({"models": ["aaaa1111"]}))
    add_files([tmp_path / "aaaa1111.safetensors", tmp_path / "bag.yaml"])
    catalog = Catalog()
    with pytest.raises(ModelError, match="'bag' needs 'bag-aaaa1111'"):
        catalog.delete("bag-aaaa1111")
    for name in ("bag", "bag-aaaa1111"):
        assert can_be_removed(catalog.find(name))
        catalog.delete(name)
    assert not [path for path in folder.rglob("*") if path.is_file()]
    with pytest.raises(ModelError, match="nothing to delete"):
        catalog.delete("pocket")
