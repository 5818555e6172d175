"""TensorFlow's checkpoints, Spleeter's above all: written here, so that none is fetched."""

import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from separator.checkpoints.spleeter import read_spleeter
from separator.checkpoints.states import load_state, read_state
from separator.checkpoints.tensor_bundle import read_bundle
from separator.errors import ConfigError, ModelError
from separator.networks import build_network
from separator.zoo.adding import add_path
from separator.zoo.load import load_network

TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}
WIDTHS = [2, 3, 4, 3, 2, 3]
Arrays = dict[str, np.ndarray]


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Write a block whose keys share what they can."""
    content, before = b"", b""
    for key, value in entries:
        shared = max(i for i in range(len(key)) if before[:i] == key[:i]) if key else 0
        content += varint(shared) + varint(len(key) - shared) + varint(len(value))
        content += key[shared:] + value
        before = key
    return content + struct.pack("<II", 0, 1)


def index(entries: dict[str, bytes], header: bytes = field(1, 1)) -> bytes:
    """Write an index of two blocks."""
    pairs = [(b"", header), *((name.encode(), value) for name, value in sorted(entries.items()))]
    middle = len(pairs) // 2
    content, handles = b"", []
    for part in filter(None, (pairs[:middle], pairs[middle:])):
        written = block(part)
        handles.append((part[-1][0] + b"\xff", varint(len(content)) + varint(len(written))))
        content += written + bytes(5)
    empty, top = block([]), block(handles)
    footer = varint(len(content)) + varint(len(empty))
    content += empty + bytes(5)
    footer += varint(len(content)) + varint(len(top))
    content += top + bytes(5)
    return content + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def write_bundle(folder: Path, arrays: Arrays, lie: Callable[..., bytes] | None = None) -> Path:
    """Write a bundle; `lie` makes an entry out of name, type, shape, offset and size."""
    data, entries = b"", {}
    for name, array in sorted(arrays.items()):
        content = array.tobytes()
        shape = b"".join(field(2, field(1, size)) for size in array.shape)
        values = (TYPES[array.dtype.name], shape, len(data), len(content))
        entries[name] = lie(name, *values) if lie else entry(name, *values)
        data += content
    folder.mkdir(exist_ok=True)
    (folder / "model.data-00000-of-00001").write_bytes(data)
    (folder / "model.index").write_bytes(index(entries))
    return folder / "model.index"


def entry(name: str, kind: int, shape: bytes, offset: int, size: int) -> bytes:
    crc = varint(6 << 3 | 5) + bytes(4)
    return field(1, kind) + field(2, shape) + field(4, offset) + field(5, size) + crc


def packed(path: Path, *names: str) -> Path:
    """Put a bundle into an archive, as those of the releases are."""
    archive = path.parent.parent / "2stems.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for name in names or ("model.index", "model.data-00000-of-00001"):
            file.add(path.parent / name, f"./{name}")
            hidden = tarfile.TarInfo(f"./._{name}")  # as they are written on a Mac
            file.addfile(hidden)
    return archive


def keras(stems: int) -> Arrays:
    """Return the parameters of small U-Nets under the names of Keras."""
    random = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    arrays: Arrays = {"global_step": np.array(7, np.int64)}
    convs = norms = ups = 0

    def suffix(count: int) -> str:
        return f"_{count}" if count else ""

    def add(name: str, **parts: np.ndarray) -> None:
        arrays.update({f"{name}/{part}": value for part, value in parts.items()})

    def norm(count: int, width: int) -> None:
        add(
            f"batch_normalization{suffix(count)}",
            gamma=numbers(width),
            beta=numbers(width),
            moving_mean=numbers(width),
            moving_variance=numbers(width) ** 2,
        )

    for _ in range(stems):
        before = 2
        for width in WIDTHS:
            add(f"conv2d{suffix(convs)}", kernel=numbers(5, 5, before, width), bias=numbers(width))
            norm(norms, width)
            convs, norms, before = convs + 1, norms + 1, width
        for width in [*reversed(WIDTHS[:-1]), 1]:
            kernel = numbers(5, 5, width, before)
            add(f"conv2d_transpose{suffix(ups)}", kernel=kernel, bias=numbers(width))
            norm(norms, width)
            ups, norms, before = ups + 1, norms + 1, 2 * width
        add(f"conv2d{suffix(convs)}", kernel=numbers(4, 4, 1, 2), bias=numbers(2))
        convs += 1
    return arrays


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "2stems", keras(2))


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path / "cache"))


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_state(path, "spleeter")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Bundles


@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_of_every_type_are_read(tmp_path: Path, dtype: str) -> None:
    arrays = {
        "layer/one": np.arange(6, dtype=dtype).reshape(2, 3),
        "layer/other": np.array(5, dtype),
        "none": np.zeros((0, 4), dtype),
    }
    found = read_bundle(write_bundle(tmp_path / "x", arrays))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].numpy().dtype == array.dtype
        assert np.array_equal(found[name].numpy(), array)


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_cut_files_are_refused(bundle: Path, part: str) -> None:
    path = bundle.parent / f"model.{part}"
    whole = path.read_bytes()
    for length in {0, 1, 47, 48, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:length])
        assert "is damaged, or no file of its kind" in refused(bundle)


def test_a_changed_byte_ends_in_one_line_or_in_other_numbers(bundle: Path) -> None:
    whole = bundle.read_bytes()
    for place in range(0, len(whole), 7):
        bundle.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            assert all(isinstance(value, Tensor) for value in read_bundle(bundle).values())
        except ModelError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": 1 << 40}, "overlaps another|ends at byte"),
        ({"offset": 0}, "overlaps another tensor"),
        ({"size": 1 << 62}, "a tensor of shape"),
        ({"shape": field(2, field(1, 1 << 40))}, "a tensor of shape"),
        ({"kind": 7}, "the unknown type 7"),
    ],
)
def test_lies_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    def lie(name: str, kind: int, shape: bytes, offset: int, size: int) -> bytes:
        values = {"kind": kind, "shape": shape, "offset": offset, "size": size}
        return entry(name, **(values | change if name == "conv2d_3/bias" else values))

    with pytest.raises(ModelError, match=message):
        read_bundle(write_bundle(tmp_path / "x", keras(1), lie))


def test_other_forms_are_refused(tmp_path: Path, bundle: Path) -> None:
    bundle.write_bytes(index({}, header=field(1, 2)))
    assert "several files of data" in refused(bundle)
    content = bytearray(index({"a": b""}))
    content[len(block([(b"", field(1, 1))]))] = 1
    bundle.write_bytes(content)
    assert "its index is compressed" in refused(bundle)
    bundle.write_bytes(bytes(2 << 20))
    assert "an index of more than 1048576 bytes" in refused(bundle)


def test_an_archive_is_read_where_it_lies(bundle: Path) -> None:
    found = read_state(packed(bundle), "spleeter")
    expected = read_state(bundle, "spleeter")
    assert found.keys() == expected.keys()
    assert all(found[key].equal(expected[key]) for key in expected)
    assert sorted(path.name for path in bundle.parent.parent.iterdir()) == [
        "2stems",
        "2stems.tar.gz",
    ]


def test_archives_that_lack_something_are_refused(bundle: Path) -> None:
    assert "0 files in it end in .index" in refused(packed(bundle, "model.data-00000-of-00001"))
    assert "'./model.data-00000-of-00001' is missing" in refused(packed(bundle, "model.index"))
    archive = packed(bundle)
    archive.write_bytes(archive.read_bytes()[:2000])
    assert "is damaged, or no file of its kind" in refused(archive)
    archive.write_bytes(b"<html>")
    assert "is damaged, or no file of its kind" in refused(archive)


def test_archives_that_would_grow_are_refused(bundle: Path) -> None:
    (bundle.parent / "model.data-00000-of-00001").write_bytes(bytes(10_000_000))
    assert "which no weights grow to" in refused(packed(bundle))


# Spleeter


def test_kernels_are_turned_and_named(bundle: Path) -> None:
    arrays, state = keras(2), read_spleeter(bundle)
    assert len(state) == 148
    down = arrays["conv2d_8/kernel"]  # of the second stem, its second layer
    expected = torch.tensor(down[::-1, ::-1].transpose(3, 2, 0, 1).copy())
    assert state["unets.1.down.1.conv.weight"].equal(expected)
    up = arrays["conv2d_transpose_7/kernel"]
    expected = torch.tensor(up[::-1, ::-1].transpose(3, 2, 0, 1).copy())
    assert state["unets.1.up.1.conv.weight"].equal(expected)
    network = build_network("spleeter", stems=["a", "b"], widths=WIDTHS)
    load_state(network, state, where="bundle")


def test_the_port_has_the_same_tensors(tmp_path: Path, bundle: Path) -> None:
    expected = read_spleeter(bundle)
    paths = [write_port(tmp_path / f"{stem}.ckpt", expected, stem) for stem in range(2)]
    found = read_state(paths[0], "spleeter", others=paths[1:])
    assert found.keys() == expected.keys()
    assert all(found[key].equal(expected[key]) for key in expected)


def write_port(path: Path, state: dict[str, Tensor], stem: int) -> Path:
    """Write a stem's parameters as the port has them: numpy arrays under names of its own."""
    arrays = {}
    for key, value in state.items():
        if not key.startswith(f"unets.{stem}."):
            continue
        side, *rest = key.split(".")[2:]
        if side == "mask":
            name = f"up7.0.{rest[0]}"
        elif side == "down":
            place = {"conv": "conv.1", "norm": "act.0"}[rest[1]]
            name = f"down{int(rest[0]) + 1}_{place}.{rest[2]}"
        else:
            name = f"up{int(rest[0]) + 1}.{ {'conv': 0, 'norm': 3}[rest[1]] }.{rest[2]}"
        turned = value.flip(-2, -1) if value.ndim == 4 else value
        arrays[name] = turned.contiguous().numpy()
    torch.save(arrays, path)
    return path


@pytest.mark.parametrize("name", ["dense/kernel", "conv2d/gamma", "batch_normalization/kernel"])
def test_another_architectures_tensors_are_refused(tmp_path: Path, name: str) -> None:
    arrays = {**keras(1), name: np.zeros(3, np.float32)}
    path = write_bundle(tmp_path / "x", arrays)
    assert f"Spleeter has no '{name}'" in refused(path)


def test_optimisers_are_left_out(tmp_path: Path) -> None:
    more = {f"conv2d/kernel/{name}": np.zeros(3, np.float32) for name in ("Adam", "Adam_1")}
    more |= {"beta1_power": np.array(0.9, np.float32)}
    state = read_spleeter(write_bundle(tmp_path / "x", {**keras(1), **more}))
    assert len(state) == 74


@pytest.mark.parametrize("kind", ["index", "folder", "archive"])
def test_a_checkpoint_becomes_a_model(bundle: Path, tmp_path: Path, kind: str) -> None:
    path = {"index": bundle, "folder": bundle.parent, "archive": packed(bundle)}[kind]
    card = add_path(path)
    assert (card.name, card.stems, card.recipe) == (
        "2stems",
        ("vocals", "accompaniment"),
        "spleeter",
    )
    assert card.segment_samples == 512 * 1024
    state = load_network(card).state_dict()
    expected = read_spleeter(bundle)
    assert all(state[key].equal(expected[key]) for key in expected)


def test_the_settings_of_a_model_are_read(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "mine", keras(3))
    with pytest.raises(ConfigError, match="has 3 stems, as no public model of Spleeter"):
        add_path(path)
    settings = tmp_path / "mine.json"
    text = """{"instrument_list": ["a", "b", "c"], "sample_rate": 44100, "frame_length": 4096,
        "frame_step": 1024, "T": 256, "F": 1536, "separation_exponent": 1, "n_channels": 2,
        "mask_extension": "average", "model": {"type": "unet.softmax_unet",
        "params": {"conv_activation": "ELU", "deconv_activation": "LeakyReLU"}}}"""
    settings.write_text(text)
    card = add_path(path, settings)
    assert card.stems == ("a", "b", "c")
    assert card.segment_samples == 256 * 1024
    assert card.parameters == {
        "widths": WIDTHS,
        "bins": 1536,
        "chunk_frames": 256,
        "down_activation": "elu",
        "up_activation": "leaky_relu",
        "softmax": True,
        "extension": "average",
        "power": 1.0,
    }
    settings.write_text(text.replace('"frame_step": 1024', '"frame_step": 512'))
    with pytest.raises(ConfigError, match=r"mine.json: 'frame_step': input should be 1024"):
        add_path(path, settings, name="other")
