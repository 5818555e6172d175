import pytest
import reference
import torch
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks import build_network
from separator.networks.tfc_tdf_v2 import Block


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def separate(network: nn.Module, mixture: Tensor, **options: object) -> Tensor:
    with torch.inference_mode():
        return network(mixture, **options)


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    values = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{value}": (channels,) for value in values} | {
        f"{name}.num_batches_tracked": ()
    }


def conv(name: str, outputs: int, inputs: int, size: int) -> dict[str, tuple[int, ...]]:
    """A convolution of `outputs` channels, and the norm behind it."""
    shapes = {f"{name}.0.weight": (outputs, inputs, size, size), f"{name}.0.bias": (outputs,)}
    return shapes | norm(f"{name}.1", outputs)


def authors_layout(scales: int, width: int, bins: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the authors' networks: three convolutions a block, a bottleneck of 8."""
    shapes = conv("first_conv", width, 4, 1)
    blocks = [(f"encoding_blocks.{i}", i) for i in range(scales)] + [("bottleneck_block", scales)]
    blocks += [(f"decoding_blocks.{i}", scales - 1 - i) for i in range(scales)]
    for name, level in blocks:
        channels, freq = width * (level + 1), bins // 2**level
        for i in range(3):
            shapes |= conv(f"{name}.tfc.H.{i}", channels, channels, 3)
        shapes |= {f"{name}.tdf.0.weight": (freq // 8, freq)} | norm(f"{name}.tdf.1", channels)
        shapes |= {f"{name}.tdf.3.weight": (freq, freq // 8)} | norm(f"{name}.tdf.4", channels)
    for i in range(scales):
        outer, inner = width * (i + 1), width * (i + 2)
        shapes |= conv(f"ds.{i}", inner, outer, 2)
        up = f"us.{scales - 1 - i}"
        shapes |= {f"{up}.0.weight": (inner, outer, 2, 2), f"{up}.0.bias": (outer,)}
        shapes |= norm(f"{up}.1", outer)
    return shapes | {"final_conv.0.weight": (4, width, 1, 1), "final_conv.0.bias": (4,)}


@pytest.mark.parametrize("scales", [4, 5])  # drums, and the other stems
def test_has_the_keys_and_shapes_of_the_authors_networks(scales):
    with torch.device("meta"):
        network = build_network("tfc_tdf_v2", stems=["drums"], scales=scales)
    found = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert found == authors_layout(scales, width=32, bins=2048)


def test_a_block_adds_its_perceptron_to_its_convolutions():
    block = Block(3, 16, kernel_size=3, convs=2, factor=4, bias=True).eval()
    x = torch.randn(2, 3, 5, 16)
    convolved = x
    for layer in block.tfc.H:
        convolved = layer(convolved)
    narrow, first, _, wide, second, _ = block.tdf
    hidden = first(torch.nn.functional.linear(convolved, narrow.weight, narrow.bias)).relu()
    update = second(torch.nn.functional.linear(hidden, wide.weight, wide.bias)).relu()
    torch.testing.assert_close(block(x), convolved + update)


def test_refuses_bins_and_kernels_that_do_not_fit():
    with pytest.raises(ConfigError, match="multiple of 2"):
        build_network("tfc_tdf_v2", stems=["a"], bins=2000)
    with pytest.raises(ConfigError, match="kernel_size"):
        build_network("tfc_tdf_v2", stems=["a"], kernel_size=4)


def test_blend_is_the_weighted_mean_of_both_streams():
    network = reference.network("mdx_net")
    mixture = reference.mixture(3001)
    spectrogram = network.from_spectrogram(mixture, [0, 1])
    waveform = network.waveform(mixture)
    share = torch.tensor([0.5, 0.9]).view(2, 1, 1)
    expected = share * spectrogram + (1 - share) * waveform
    torch.testing.assert_close(separate(network, mixture), expected, check_stride=False)


def test_mixer_sees_all_stems_and_the_mixture():
    """A mixer that gives each stem what the other one leaves of the mixture."""
    network = reference.network("mdx_net")
    network.waveform = None
    mixture = reference.mixture(3001)
    alone = torch.cat([separate(stream, mixture) for stream in network.separators.values()], dim=1)
    none, one = torch.zeros(2, 2), torch.eye(2)
    rows = [[none, -one, one], [-one, none, one]]  # from drums, vocals and the mixture
    network.mixing_layer.weight = nn.Parameter(torch.cat([torch.cat(r, dim=1) for r in rows]))
    expected = mixture.unsqueeze(1) - alone.flip(1)
    torch.testing.assert_close(separate(network, mixture), expected)
    torch.testing.assert_close(separate(network, mixture, stems=[1]), expected[:, 1:])


def test_an_untrained_mixer_changes_nothing():
    parameters = reference.CASES["mdx_net"].parameters
    parameters = {k: v for k, v in parameters.items() if k not in ("waveform", "blend")}
    mixed = build_network("mdx_net", **parameters).eval()
    plain = build_network("mdx_net", **parameters, mixer=False).eval()
    plain.load_state_dict({k: v for k, v in mixed.state_dict().items() if "mixing" not in k})
    mixture = reference.mixture(2000)
    torch.testing.assert_close(separate(mixed, mixture), separate(plain, mixture))


def test_compiling_the_core_compiles_every_stream(monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    reference.network("mdx_net").get_submodule("core").compile()
    assert compiled == ["TfcTdfV2Core", "TfcTdfV2Core", "DemucsCore"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"separators": [{}]}, "one entry"),
        ({"blend": [0.5]}, "one share"),
        ({"blend": [0.5, 1.5]}, "one share"),
        ({"waveform": None}, "nothing to blend"),
        ({"separators": [{}, {"width_": 4}]}, "Did you mean 'width'"),
        ({"waveform": {"stems": ["a"]}}, "leave stems"),
    ],
)
def test_refuses_streams_that_do_not_fit(options, word):
    with pytest.raises(ConfigError, match=word), torch.device("meta"):
        build_network("mdx_net", **(reference.CASES["mdx_net"].parameters | options))
