import pytest
import reference
import torch

from separator.errors import ConfigError
from separator.networks import build_network
from separator.networks.bsrnn import feature_indices, infer_hyperparameters, without_decoders

TINY = {
    "stems": ["speech", "music"],
    "band_count": 6,
    "n_fft": 128,
    "hop_length": 32,
    "modules": 2,
    "rnn": "gru",
    "dim": 4,
    "rnn_hidden": 3,
    "mask_hidden": 5,
}


def build(**options):
    network = build_network("bsrnn", **{**TINY, **options}).eval()
    network.load_state_dict(reference.weights(network.state_dict()))
    return network


@pytest.mark.parametrize("bands", ["musical", "bark", "erb"])
def test_agrees_with_the_reference_implementation(bands):
    assert reference.relative_error(f"bsrnn_{bands}") < reference.ROUNDING


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
def test_infers_its_hyperparameters_from_a_state_dict(rnn):
    inferred = infer_hyperparameters(build(rnn=rnn).state_dict())
    assert inferred.pop("stem_count") == 2
    assert inferred == {**{key: TINY[key] for key in inferred}, "rnn": rnn}
    assert set(TINY) - set(inferred) == {"n_fft", "hop_length"}


def test_features_are_real_then_imaginary_parts():
    bands = ((0, 2), (1, 3))
    pairs = torch.tensor([10, 11, 20, 21, 30, 31])  # real and imaginary parts of three bins
    assert pairs[feature_indices(bands)].tolist() == [10, 20, 11, 21, 20, 30, 21, 31]


@pytest.mark.parametrize("bands", ["musical", "vocals", [5, 20, 40]])
def test_equal_masks_of_all_bands_are_the_mask_of_every_bin(bands):
    network = build(bands=bands, sample_rate=8000)
    masks = torch.tensor([0.25, -0.5]).repeat(1, 2, 3, len(network.index))
    merged = network.merge(masks)
    assert merged.shape == (1, 2, 1, 65, 3)
    torch.testing.assert_close(merged, torch.full_like(merged, 0.25 - 0.5j))


def test_separates_every_channel_on_its_own():
    network, mixture = build(), reference.mixture(900)
    with torch.inference_mode():
        together = network(mixture)
        apart = torch.cat([network(mixture[:, :1]), network(mixture[:, 1:])], dim=2)
    torch.testing.assert_close(together, apart)


def test_decoders_can_be_left_out():
    both, mixture = build(), reference.mixture(900)
    one = build(stems=["music"])
    one.load_state_dict(without_decoders(both.state_dict(), ["speech"]))
    with torch.inference_mode():
        torch.testing.assert_close(one(mixture), both(mixture)[:, 1:])
        torch.testing.assert_close(both(mixture, stems=[1]), both(mixture)[:, 1:])


def test_refuses_widths_that_do_not_cover_all_bins():
    with pytest.raises(ConfigError, match="65 bins"):
        build(bands=[5, 20])
