import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.spectral.bands import (
    BS_ROFORMER_WIDTHS,
    BandMasks,
    BandSplit,
    bin_indices,
    coverage,
    explicit_bands,
    mel_bands,
    musical_bands,
    widths,
)

SIZES = (4, 4, 4, 6, 4, 10, 10)
#: Bins of the 60 bands that the public Mel-Band RoFormers were trained with.
MEL_WIDTHS = (
    *(7, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 9, 9, 9, 10, 10, 11, 13, 13, 13, 15),
    *(16, 17, 19, 20, 20, 22, 24, 26, 28, 29, 31, 33, 36, 39, 41, 44, 47, 50, 54, 57, 61, 66, 71),
    *(76, 80, 86, 93, 99, 105, 113, 122, 130),
)


def test_bs_roformer_has_62_bands_of_1025_bins():
    bands = explicit_bands(BS_ROFORMER_WIDTHS, bins=1025)
    assert len(bands) == 62
    assert widths(bands) == BS_ROFORMER_WIDTHS
    assert torch.equal(bin_indices(bands), torch.arange(1025))


def test_mel_bands_are_those_of_the_public_checkpoints():
    bands = mel_bands(60, n_fft=2048, sample_rate=44100)
    assert widths(bands) == MEL_WIDTHS
    counts = coverage(bands)
    assert (counts.count(1), counts.count(2), len(counts)) == (71, 954, 1025)
    assert sum(widths(mel_bands(60, n_fft=4096, sample_rate=44100))) == 3957


def test_musical_bands_are_those_of_bandit():
    bands = musical_bands(64, n_fft=2048, sample_rate=44100)
    assert bands[:13:3] == ((0, 3), (1, 3), (1, 4), (2, 4), (3, 6))
    assert bands[40:] == (
        *((73, 92), (81, 103), (91, 115), (101, 128), (113, 143), (126, 159), (141, 177)),
        *((158, 198), (176, 221), (196, 246), (219, 275), (245, 306), (273, 342), (305, 381)),
        *((341, 425), (381, 475), (425, 530), (474, 591), (530, 660), (591, 736), (660, 822)),
        *((737, 917), (823, 1024), (918, 1025)),
    )
    assert sum(widths(bands)) == 2142


@pytest.mark.parametrize("n_fft", [512, 1024, 4096])
@pytest.mark.parametrize("count", [2, 20, 31])
def test_partitions_cover_every_bin_in_order(n_fft, count):
    for partition in (mel_bands, musical_bands):
        bands = partition(count, n_fft=n_fft, sample_rate=44100)
        assert len(bands) == count
        assert len(coverage(bands)) == n_fft // 2 + 1
        assert min(coverage(bands)) >= 1
        assert list(bands) == sorted(bands)


@pytest.mark.parametrize("wrong", [(1, 2, 3), (5, 0), (6, -1), ()])
def test_explicit_bands_must_cover_the_bins(wrong):
    with pytest.raises(ConfigError, match="5 bins"):
        explicit_bands(wrong, bins=5)


def test_bands_must_not_be_empty():
    with pytest.raises(ConfigError, match="Use fewer bands"):
        mel_bands(200, n_fft=512, sample_rate=44100)
    with pytest.raises(ConfigError, match="257 bins"):
        musical_bands(300, n_fft=512, sample_rate=44100)


def test_split_is_a_norm_and_a_linear_layer_per_band():
    split = BandSplit(SIZES, dim=5)
    state = randomize(split)
    x = torch.randn(7, sum(SIZES))
    expected = []
    for band, piece in enumerate(x.split(SIZES, dim=-1)):
        gain, weight, bias = (
            state[f"to_features.{band}.{name}"] for name in ("0.gamma", "1.weight", "1.bias")
        )
        normal = F.normalize(piece, dim=-1) * SIZES[band] ** 0.5 * gain
        expected.append(F.linear(normal, weight, bias))
    torch.testing.assert_close(split(x), torch.stack(expected))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_masks_are_a_perceptron_per_band(layers):
    masks = BandMasks(SIZES, dim=5, hidden=9, layers=layers)
    state = randomize(masks)
    x = torch.randn(len(SIZES), 7, 5)
    expected = []
    for band, y in enumerate(x):
        for layer in range(layers):
            name = f"to_freqs.{band}.0.{2 * layer}"
            y = F.linear(y.tanh() if layer else y, state[f"{name}.weight"], state[f"{name}.bias"])
        expected.append(F.glu(y, dim=-1))
    torch.testing.assert_close(masks(x), torch.cat(expected, dim=-1))


def test_split_ignores_the_level_of_a_band():
    split, x = BandSplit(SIZES, dim=5), torch.randn(3, sum(SIZES))
    torch.testing.assert_close(split(1e4 * x), split(x))
    assert split(torch.zeros(1, sum(SIZES))).isfinite().all()


def test_state_holds_one_entry_per_band_and_loads_again():
    split = BandSplit(SIZES, dim=5)
    state = randomize(split)
    assert list(state) == [
        f"to_features.{band}.{name}"
        for band in range(len(SIZES))
        for name in ("0.gamma", "1.weight", "1.bias")
    ]
    other = BandSplit(SIZES, dim=5)
    other.load_state_dict(state)
    assert all(
        torch.equal(*pair) for pair in zip(split.parameters(), other.parameters(), strict=True)
    )


def test_loading_names_what_does_not_fit():
    split = BandSplit(SIZES, dim=5)
    state = split.state_dict()
    state["to_features.9.1.bias"] = state.pop("to_features.2.1.bias")
    state["to_features.3.0.gamma"] = torch.ones(7)
    with pytest.raises(RuntimeError) as error:
        split.load_state_dict(state)
    for word in ("to_features.9.1.bias", "to_features.2.1.bias", r"has the shape (7,)"):
        assert word in str(error.value)
    missing, unexpected = BandSplit(SIZES, dim=5).load_state_dict({"x": torch.ones(1)}, False)
    assert (len(missing), unexpected) == (3 * len(SIZES), ["x"])


def randomize(module: nn.Module) -> dict[str, Tensor]:
    """Give every parameter its own values and return the state."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module.state_dict()
