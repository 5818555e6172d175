from dataclasses import replace
from fractions import Fraction
from inspect import signature

import pytest
import reference
import torch
import yaml
from conftest import weights_entry
from safetensors.torch import save_file

from separator.api import Separator
from separator.checkpoints.demucs_formats import (
    NAMES,
    from_demucs_kwargs,
    from_demucs_v2,
    from_torchaudio,
)
from separator.errors import ConfigError
from separator.networks import build_network, network_class
from separator.networks.demucs import Octave
from separator.networks.demucs_layers import (
    BLSTM,
    LocalAttention,
    ScaledEmbedding,
    TimeConv,
    rescale,
)
from separator.networks.htdemucs import TransformerLayer
from separator.networks.hybrid_layers import (
    BandDecoder,
    BandEncoder,
    DecoderLayer,
    EncoderLayer,
    Refine,
    Resize,
)

STEMS = ["drums", "bass", "other", "vocals"]
CASES = [name for name in reference.CASES if "demucs" in name]
HTDEMUCS = {
    "sources": STEMS,
    "channels": 48,
    "nfft": 4096,
    "dconv_mode": 3,
    "dconv_init": "1e-3",  # as YAML reads it
    "bottom_channels": 512,
    "t_layers": 5,
    "t_dropout": 0.02,
    "t_emb": "sin",
    "multi_freqs": None,
    "segment": Fraction(39, 5),
}


def relative(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_reference_implementation(name):
    assert reference.relative_error(name) < reference.ROUNDING


@pytest.mark.parametrize(
    ("network", "arguments", "expected"),
    [
        ("htdemucs", HTDEMUCS, (533, 41984456, 552080397)),
        (
            "htdemucs",
            HTDEMUCS | {"sources": [*STEMS, "guitar", "piano"], "bottom_channels": 0},
            (525, 27414996, 1055681392),
        ),
        ("hdemucs", {"sources": STEMS, "multi_freqs": []}, (395, 83637832, 2940362322)),
        ("demucs", {"sources": STEMS, "channels": 64}, (284, 133753064, 3420462024)),
    ],
)
def test_has_the_keys_and_shapes_of_the_public_checkpoints(network, arguments, expected):
    with torch.device("meta"):
        built = build_network(network, **from_demucs_kwargs(network, arguments))
    assert reference.layout(built.state_dict()) == expected


def test_loads_what_torchaudio_saves():
    models = pytest.importorskip("torchaudio.models")
    torch.manual_seed(0)
    theirs = models.HDemucs(STEMS, channels=6, nfft=64, depth=4, norm_starts=2).eval()
    ours = build_network(
        "hdemucs", stems=STEMS, hidden_channels=6, n_fft=64, depth=4, norm_starts=2
    ).eval()
    ours.load_state_dict(from_torchaudio(theirs.state_dict()))
    mixture = reference.mixture(3000)
    with torch.inference_mode():
        assert relative(theirs(mixture), ours(mixture)) < 1e-5


def test_hybrid_transforms_are_inverse_and_aligned():
    network = build_network("hdemucs", stems=["a"], hidden_channels=4, n_fft=256, depth=2)
    time = torch.arange(3001) / 3001
    signal = torch.stack([(300 * time).sin(), (2000 * time).cos()])[None]
    spectrogram = network.spectrogram(signal)
    assert spectrogram.shape == (1, 2, 128, 47)
    inside = slice(256, -256)  # no frame there sees a mirror image
    again = network.waveform(spectrogram, 3001)
    assert relative(signal[..., inside], again[..., inside]) < 1e-5
    impulse = torch.zeros(1, 2, 3008)
    impulse[..., 20 * 64 : 21 * 64] = 1.0
    energy = network.spectrogram(impulse).abs().square().sum((0, 1, 2))
    assert energy.argmax() == 20


def test_a_transformer_refuses_segments_longer_than_its_training_examples(tmp_path):
    case = reference.CASES["htdemucs"]
    file = tmp_path / "tiny.safetensors"
    save_file(reference.network("htdemucs").state_dict(), file)
    parameters = {key: value for key, value in case.parameters.items() if key != "stems"}
    card = {"name": "tiny", "description": "Tiny", "network": "htdemucs", "licence": "MIT"}
    card |= {"parameters": parameters, "stems": case.parameters["stems"], "segment": 0.1}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(card | {"weights": weights_entry(file)}))
    options = {"device": "cpu", "precision": "float32"}
    with pytest.raises(ConfigError, match=r"at most 0.1 s .* of 0.11 s. Use --segment 0.1,"):
        Separator(tmp_path / "tiny.yaml", segment=0.11, **options)
    separator = Separator(tmp_path / "tiny.yaml", segment=0.05, **options)
    mixture = reference.mixture(5000)[0]
    assert separator.separate(mixture, 44100)["drums"].shape == mixture.shape
    with pytest.raises(ConfigError, match=r"Use --segment 0\.1"):
        separator.with_knobs(replace(separator.knobs, segment=1.0))


def test_htdemucs_lengthens_short_mixtures_only_outside_training():
    network = reference.network("htdemucs")
    short = reference.mixture(1000)
    padded = torch.nn.functional.pad(short, (0, round(0.1 * 44100) - 1000))
    with torch.inference_mode():
        torch.testing.assert_close(network(short), network(padded)[..., :1000])
        training = network.train()(short)
    assert training.shape[-1] == 1000


def test_bands_with_equal_weights_are_one_layer():
    resize, refine = Resize("freq", 8, 4, 2), Refine(0, 1, None)
    splits = [0.2, 0.55]
    x = torch.randn(2, 3, 64, 5)
    banded = BandEncoder(3, 6, resize, Refine(0, 0, None), splits)
    one = EncoderLayer(3, 6, resize, Refine(0, 0, None))
    for layer in banded.layers:
        layer.load_state_dict(one.state_dict())
    code = one(x)
    torch.testing.assert_close(banded(x), code)

    back = DecoderLayer(6, 3, resize, refine, outermost=False, context_freq=False)
    banded_back = BandDecoder(6, 3, resize, refine, False, splits)
    for layer in banded_back.layers:
        layer.load_state_dict(back.state_dict())
    for outputs in (None, torch.tensor([2, 0])):
        expected, _ = back(code, code, 5, outputs)
        torch.testing.assert_close(banded_back(code, code, 5, outputs)[0], expected)


@pytest.mark.parametrize(("size", "stride", "padding"), [(1, 1, 0), (3, 1, 1), (8, 4, 0)])
def test_convolutions_are_products_with_windows(size, stride, padding):
    conv = TimeConv(3, 5, size, stride, padding)
    x = torch.randn(2, 3, 4, 21)
    torch.testing.assert_close(conv.product(x), conv(x))
    alone = torch.nn.functional.conv1d(x[:, :, 1], conv.weight, conv.bias, stride, padding)
    torch.testing.assert_close(conv(x)[:, :, 1], alone)


@pytest.mark.parametrize("time", [1, 7, 8, 9, 15, 16, 17, 100])
def test_windows_of_a_recurrent_layer_join_seamlessly(monkeypatch, time):
    layer = BLSTM(4, max_steps=8)
    monkeypatch.setattr(layer, "recur", lambda windows: windows)
    x = torch.randn(2, 4, 1, time)
    torch.testing.assert_close(layer(x), x)


def test_local_attention_prefers_what_is_near():
    layer = LocalAttention(8)
    far, near = layer.scores(torch.randn(1, 8, 1, 300))[0, 0, 0, [299, 1]]
    assert far < near < 0
    itself = layer.scores(torch.randn(1, 8, 1, 3)).diagonal(dim1=2, dim2=3)
    assert (itself == -100).all()


def test_octave_keeps_constants_and_tones():
    octave = Octave()
    assert torch.allclose(octave.up(torch.ones(1, 1, 50)), torch.ones(1, 1, 100), atol=1e-6)
    assert torch.allclose(octave.down(torch.ones(1, 1, 51)), torch.ones(1, 1, 25), atol=1e-6)
    tone = torch.sin(torch.arange(2000) * 0.7)[None, None]
    doubled = torch.sin(torch.arange(4000) * 0.35)[None, None]
    inside = slice(200, -200)
    assert relative(doubled[..., inside], octave.up(tone)[..., inside]) < 1e-3
    assert relative(tone[..., inside], octave.down(doubled)[..., inside]) < 1e-3
    ultrasound = torch.sin(torch.arange(4000) * 2.0)[None, None]
    assert octave.down(ultrasound)[..., inside].abs().max() < 1e-2


def test_fresh_weights_are_rescaled_and_embeddings_smooth():
    conv = torch.nn.Conv1d(8, 64, 8)
    before = conv.weight.std()
    rescale(conv)
    torch.testing.assert_close(conv.weight.std(), (before * 0.1).sqrt())
    torch.manual_seed(0)
    vectors = ScaledEmbedding(400, 16, scale=10.0)()
    assert (vectors[301:] - vectors[300:-1]).std() < 0.2 * vectors[300:].std()


def test_translates_arguments_both_ways():
    ours = from_demucs_kwargs("htdemucs", HTDEMUCS)
    assert ours["segment"] == 7.8
    assert ours["dconv_init"] == 1e-3
    assert ours["band_splits"] == []
    assert from_demucs_kwargs("htdemucs", {"use_train_segment": False}) == {"segment": None}
    assert from_demucs_kwargs("hdemucs", {"wiener_iters": -1}) == {"wiener_iterations": 0}
    for network, names in NAMES.items():
        known = from_demucs_kwargs(network, dict.fromkeys(names, 1))
        assert set(known) <= set(signature(network_class(network)).parameters)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"chanels": 48}, ["chanels", "Did you mean 'channels'"]),
        ({"t_emb": "cape"}, ["t_emb", "'cape'", "'sin'"]),
        ({"rewrite": False}, ["rewrite", "True"]),
    ],
)
def test_names_arguments_that_it_does_not_know(arguments, words):
    with pytest.raises(ConfigError) as error:
        from_demucs_kwargs("htdemucs", arguments)
    assert all(word in str(error.value) for word in words)


def test_renumbers_the_keys_of_version_2():
    network = build_network("demucs", stems=["a"], hidden_channels=2, depth=2, dconv_mode=0)
    state = network.state_dict()
    old = {key.replace(".3.", ".2."): value for key, value in state.items()}
    assert old.keys() != state.keys()
    assert from_demucs_v2(old).keys() == state.keys()
    assert from_demucs_v2(state).keys() == state.keys()


@pytest.mark.parametrize(
    ("network", "options", "word"),
    [
        ("hdemucs", {"n_fft": 512}, "multiply to n_fft / 4"),
        ("htdemucs", {"bottom_channels": 30}, "multiple of 4"),
        ("htdemucs", {"hidden_channels_time": 24}, "bottom_channels"),
        ("hdemucs", {"dconv_comp": 5}, "multiple of 4"),
        ("hdemucs", {"band_splits": [0.5], "band_split_layers": 5}, "band_split_layers"),
        ("hdemucs", {"band_splits": [0.5, 0.2]}, "rise"),
        ("demucs", {"hidden_channels": 2}, "none left"),
    ],
)
def test_refuses_impossible_sizes(network, options, word):
    with torch.device("meta"), pytest.raises(ConfigError, match=word):
        build_network(network, stems=STEMS, **options)


@pytest.mark.parametrize("cross", [False, True])
def test_parameters_of_a_layer_come_in_the_order_of_quantised_files(cross):
    """Such files name nothing, and biases of one shape could change places unseen."""
    sizes = {"dim": 8, "heads": 2, "hidden": 16, "dropout": 0.0, "init": 1.0}
    parts = [
        name.split(".")[0] for name, _ in TransformerLayer(**sizes, cross=cross).named_parameters()
    ]
    norms = ["norm1", "norm2", *(["norm3"] if cross else []), "norm_out"]
    order = ["cross_attn" if cross else "self_attn", "linear1", "linear2", *norms]
    assert list(dict.fromkeys(parts)) == [*order, "gamma_1", "gamma_2"]
