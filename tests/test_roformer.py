import pytest
import reference
import soundfile
import torch
import torch.nn.functional as F
from torch import nn

from separator.errors import ConfigError
from separator.networks import build_network, layers
from separator.networks.layers import Attention, FeedForward, RMSNorm, Transformer, attend, unit
from separator.networks.positions import PolarEmbedding, RotaryEmbedding, rotate
from separator.resources import data_folder
from separator.zoo.load import load_network
from separator.zoo.search import find_card

CASES = ["bs_roformer", "bs_roformer_mono", "bs_roformer_polar", "mel_band_roformer"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_reference_implementation(case):
    assert reference.relative_error(case) < reference.ROUNDING


@pytest.mark.oracle
@pytest.mark.parametrize("mel", [False, True])
def test_agrees_with_pymss_on_default_bands(mel):
    roformers = pytest.importorskip("pymss_core.modules.bs_roformer", reason="needs pymss-core")
    torch.manual_seed(0)
    settings = {"dim": 32, "depth": 2, "heads": 4, "dim_head": 16}
    oracle = (roformers.MelBandRoformer if mel else roformers.BSRoformer)(
        stereo=True,
        num_stems=2,
        time_transformer_depth=1,
        freq_transformer_depth=1,
        attn_dropout=0.0,
        ff_dropout=0.0,
        zero_dc=False,
        stft_hop_length=441,
        mask_estimator_depth=2,
        **({"mlp_hidden_layers": 2} if mel else {}),
        **settings,
    ).eval()
    name = "mel_band_roformer" if mel else "bs_roformer"
    network = build_network(name, stems=["a", "b"], hop_length=441, **settings).eval()
    network.load_state_dict(oracle.state_dict())
    mixture = reference.mixture(441 * 60)
    with torch.inference_mode():
        expected = oracle(mixture)
        difference = network(mixture) - expected
    assert difference.norm() / expected.norm() < 1e-5


@pytest.mark.parametrize(
    ("network", "stems", "parameters", "expected"),
    [
        ("bs_roformer", 1, {"dim": 512, "depth": 12}, (699, 159758796, 345086550)),
        ("bs_roformer", 1, {"dim": 384, "depth": 12}, (699, 98195532, 4205677273)),
        ("bs_roformer", 6, {"dim": 256, "depth": 12}, (1939, 174657268, 4126235344)),
        (
            "bs_roformer",
            4,
            {"dim": 384, "depth": 8, "mlp_expansion_factor": 2},
            (1355, 131704612, 941479249),
        ),
        ("mel_band_roformer", 1, {"dim": 384, "depth": 6}, (684, 228203172, 788311454)),
        ("mel_band_roformer", 1, {"dim": 384, "depth": 12}, (828, 251870340, 576003428)),
        ("mel_band_roformer", 2, {"dim": 256, "depth": 12}, (1188, 217302620, 1809110633)),
    ],
)
def test_has_the_keys_and_shapes_of_the_public_checkpoints(network, stems, parameters, expected):
    with torch.device("meta"):
        built = build_network(network, stems=[str(i) for i in range(stems)], **parameters)
    assert reference.layout(built.state_dict()) == expected


def with_masks_of_one(case: str) -> nn.Module:
    """Replace the core by one that lets everything pass as the first stem."""
    network = reference.network(case)
    one = torch.tensor([1.0, 0.0])  # real and imaginary part

    def core(features: torch.Tensor, stems: object) -> torch.Tensor:
        return one.repeat(features.shape[-1] // 2).expand_as(features).unsqueeze(1)

    network.core.forward = core
    network.zero_dc = False
    return network


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("samples", [1, 700, 6001])
def test_masks_of_one_return_the_mixture(case, samples):
    network = with_masks_of_one(case)
    mixture = reference.mixture(samples, network.channels)
    torch.testing.assert_close(network(mixture)[:, 0], mixture, atol=1e-5, rtol=0)


def test_zero_dc_leaves_a_third_of_a_constant():
    """Of a Hann window w its mean is taken away: sum w (w - 1/2) / sum w^2 = 1/3."""
    network = with_masks_of_one("bs_roformer_mono")
    network.zero_dc = True
    estimates = network(torch.full((1, 1, 6000), 0.9))[..., 1000:5000]
    torch.testing.assert_close(estimates, torch.full_like(estimates, 0.3))


def test_bands_must_be_of_the_networks_kind():
    with pytest.raises(ConfigError, match="list of widths"):
        build_network("bs_roformer", stems=["a"], dim=8, depth=1, bands=60)
    with pytest.raises(ConfigError, match="must be a number"):
        build_network("mel_band_roformer", stems=["a"], dim=8, depth=1, bands=[1024, 1])
    with pytest.raises(ConfigError, match="1025 bins"):
        build_network("bs_roformer", stems=["a"], dim=8, depth=1, bands=[1024])


def test_dropout_acts_in_training_only():
    options = {"attention_dropout": 0.5, "ff_dropout": 0.5}
    network = build_network("bs_roformer", stems=["a"], dim=16, depth=1, **options)
    mixture = reference.mixture(3000)
    assert not torch.equal(network(mixture), network(mixture))
    network.eval()
    assert torch.equal(network(mixture), network(mixture))


def test_rotation_keeps_norms_and_sees_only_distances():
    rotation = RotaryEmbedding(16)(50)
    query, key = torch.randn(16), torch.randn(16)
    queries, keys = rotate(query.expand(50, 16), rotation), rotate(key.expand(50, 16), rotation)
    torch.testing.assert_close(queries.norm(dim=-1), query.norm().expand(50))
    scores = queries @ keys.T
    for distance in (0, 1, 20):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4, rtol=0)
    assert (scores[0, 0] - scores[0, 20]).abs() > 0.1


def test_rotation_turns_neighbouring_features():
    angle = RotaryEmbedding(4)(2)[1].angle()
    torch.testing.assert_close(angle, torch.tensor([1.0, 0.01]))
    turned = rotate(torch.tensor([1.0, 0.0, 0.0, 2.0]), torch.polar(torch.ones(2), angle))
    expected = torch.stack(
        [angle[0].cos(), angle[0].sin(), -2 * angle[1].sin(), 2 * angle[1].cos()]
    )
    torch.testing.assert_close(turned, expected)


@pytest.mark.parametrize("embedding", [RotaryEmbedding(64), PolarEmbedding(2, 64)])
def test_frequencies_of_positions_stay_float32(embedding):
    expected = embedding(1000)
    assert torch.equal(embedding.to(torch.bfloat16)(1000), expected)
    assert len(embedding.state_dict()) == len(
        list(embedding.buffers()) + list(embedding.parameters())
    )


def test_polar_scores_are_products_of_radii_and_a_cosine_of_the_distance():
    embedding = PolarEmbedding(2, 3)
    embedding.bias.data = torch.tensor([[0.0, -1.0, -3.0], [-7.0, 1.0, -0.5]])
    query, key = torch.randn(2, 4, 2, 5, 3).unbind()
    placed = embedding.prepare(5)(torch.stack([query, key]))
    scores = placed[0] @ placed[1].mT  # (sequences, heads, length, length)
    distance = torch.arange(5)[:, None] - torch.arange(5)  # of a query to a key
    offset = embedding.bias.clamp(-2 * torch.pi, 0)[:, None, None]
    angles = distance[..., None] * 10_000 ** -(torch.arange(3) / 3) - offset
    radii = F.softplus(query)[..., None, :] * F.softplus(key)[..., None, :, :]
    torch.testing.assert_close(scores, (radii * angles.cos()).sum(-1) / 3**0.5)


def test_unit_is_safe_at_zero_and_for_large_vectors():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3e18, 4e18]])
    torch.testing.assert_close(unit(x), torch.tensor([[0.0, 0.0], [0.6, 0.8], [0.6, 0.8]]))


def test_norm_then_linear_is_both_in_turn():
    norm, linear = RMSNorm(8), nn.Linear(8, 5)
    nn.init.normal_(norm.gamma)
    x = torch.randn(3, 8)
    expected = linear(F.rms_norm(x, (8,), norm.gamma))
    torch.testing.assert_close(norm.then(linear)(unit(x)), expected)
    torch.testing.assert_close(norm.then(linear, gelu=True)(unit(x)), F.gelu(expected))
    torch.testing.assert_close(linear(norm(x)), expected)


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
def test_prepared_layer_agrees_with_its_definition(dtype, tolerance, gelu):
    weight, bias, x = torch.randn(24, 16), torch.randn(24), torch.randn(3, 5, 16)
    expected = F.linear(x.double(), weight.double(), bias.double())
    expected = F.gelu(expected) if gelu else expected
    with torch.inference_mode():
        layer = layers.affine(weight.to(dtype), bias.to(dtype), gelu=gelu)
        error = (layer(x.to(dtype)) - expected).norm() / expected.norm()
    assert error < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
@pytest.mark.parametrize("length", [1, 37, 150])
@pytest.mark.parametrize(("features", "queries"), [(8, 150), (4, 150), (8, 20)])
def test_attention_in_pieces_agrees_with_its_definition(
    length, features, queries, dtype, tolerance, monkeypatch
):
    monkeypatch.setattr(layers, "CACHED_SCORES", 2 * 37**2)  # so that there are several pieces
    query, key, value = torch.randn(3, 2, 3, length, 8).to(dtype)
    query, value = query[:, :, :queries], value[..., :features]
    expected = (query.double() @ key.double().mT).softmax(-1) @ value.double()
    with torch.inference_mode():
        error = (attend(query, key, value) - expected).norm() / expected.norm()
    assert error < tolerance


def test_the_residual_stream_stays_exact_when_the_weights_are_bfloat16():
    transformer = Transformer(16, heads=2, dim_head=8, depth=2).eval()
    x = 1000 + torch.randn(3, 5, 16)  # bfloat16 would round this to multiples of 8
    with torch.inference_mode():
        expected = transformer(x)
        rounded = transformer.to(torch.bfloat16)(x)
    assert rounded.dtype == torch.float32
    assert (rounded - expected).abs().max() < 0.1


def test_attention_is_a_gated_softmax():
    attention = Attention(8, heads=2, dim_head=4)
    x = torch.randn(1, 5, 8)
    normed = attention.norm(x)[0]
    rotation = attention.rotary_embed(5)
    heads = []
    for head in range(2):
        rows = slice(4 * head, 4 * head + 4)
        q, k, v = (part[rows] for part in attention.to_qkv.weight.split(8))
        query, key = rotate(normed @ q.T, rotation), rotate(normed @ k.T, rotation)
        weights = (query @ key.T / 2).softmax(-1)
        heads.append(weights @ (normed @ v.T) * attention.to_gates(normed)[:, head, None].sigmoid())
    expected = torch.cat(heads, dim=-1) @ attention.to_out[0].weight.T
    torch.testing.assert_close(attention(x)[0], expected)


def test_feed_forward_applies_its_layers_in_turn():
    block = FeedForward(8)
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(block(x), block.net(x))


@pytest.mark.slow
def test_bundled_model_scores_the_same_in_bfloat16():
    """Against stems that its estimates miss as far as the true ones, by 5 dB."""
    mixture, _ = soundfile.read(
        data_folder("models") / "demo" / "mixture.flac", 4 * 44_100, dtype="float32", always_2d=True
    )
    mixture = torch.from_numpy(mixture.T.copy()).unsqueeze(0)
    network = load_network(find_card("pocket"))
    with torch.inference_mode():
        exact = network(mixture)
        network.get_submodule("core").to(torch.bfloat16)
        rounded = network(mixture)
    power = exact.square().mean((2, 3), keepdim=True)
    truth = exact + torch.randn(exact.shape) * (power * 10**-0.5).sqrt()
    ratio = (rounded - truth).square().sum((2, 3)) / (exact - truth).square().sum((2, 3))
    assert (10 * torch.log10(ratio)).abs().max() < 0.02


def test_hidden_prefix_leaves_the_neighbours_their_keys():
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core = nn.Linear(2, 2, bias=False)
            self.filters = nn.Linear(2, 2, bias=False)
            layers.hide_prefix(self, "core")

    first, second = Network(), Network()
    state = first.state_dict()
    assert set(state) == {"weight", "filters.weight"}
    second.load_state_dict(state)
    assert torch.equal(second.core.weight, first.core.weight)
    assert torch.equal(second.filters.weight, first.filters.weight)


def test_pieces_of_the_cache_do_not_change_the_result(monkeypatch):
    transformer = Transformer(8, heads=2, dim_head=4, norm_output=True).eval()
    x = torch.randn(4, 7, 8).transpose(0, 1)  # strided, as the axis of the bands is
    expected = transformer(x)
    monkeypatch.setattr(layers, "CACHED_FEATURES", 3 * 4 * 8)
    with torch.inference_mode():
        torch.testing.assert_close(transformer(x), expected)


@pytest.mark.parametrize("name", ["bs_roformer", "mel_band_roformer"])
@torch.no_grad()
def test_masks_apply_to_the_first_of_several_inputs(name):
    bands = {"bands": [4, 28, 33]} if name == "bs_roformer" else {"bands": 4}
    settings = {"dim": 8, "depth": 1, "heads": 1, "dim_head": 8, "n_fft": 128, "hop_length": 64}
    network = build_network(name, stems=["a"], inputs=2, **bands, **settings).eval()
    mixture, hint = torch.randn(2, 1, 2, 1000)
    plain = network(torch.cat([mixture, torch.zeros_like(hint)], 1))
    hinted = network(torch.cat([mixture, hint], 1))
    assert plain.shape == hinted.shape == (1, 1, 2, 1000)
    assert not torch.allclose(plain, hinted)
    assert not network(torch.cat([torch.zeros_like(mixture), hint], 1)).any()
