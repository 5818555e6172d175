import pytest
import reference
import torch
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks import build_network


def instruments() -> Tensor:
    """Two stems that overlap in all bins but the highest, each with channels in one proportion."""
    noise = torch.randn(1, 2, 1, 6000, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft(noise)
    spectrum[..., -200:] = 0
    low = torch.fft.irfft(spectrum, 6000)
    return low * torch.tensor([[1.0, 0.4], [0.5, 0.9]]).view(1, 2, 2, 1)


def with_oracle(kind: str, stems: Tensor, bound: float = 1.0) -> nn.Module:
    """Build a network whose core knows the truth and predicts the best masks of its kind."""
    network = build_network(
        "complex_unet",
        stems=["a", "b"],
        mask=kind,
        bound=bound,
        n_fft=512,
        hop_length=128,
        scales=2,
        width=4,
    ).eval()
    truth = torch.stack([network.stft(stem) for stem in stems.unbind(1)], dim=1)
    mask = truth / truth.sum(1, keepdim=True)  # (batch, stems, channels, freq, frames)

    def core(features: Tensor, outputs: object) -> Tensor:
        if kind == "magnitude":
            # the part of the stem that has the mixture's phase is the best that a gain can do
            parts = torch.logit(mask.real.clamp(1e-6, 1 - 1e-6)).unsqueeze(3)
        else:
            wanted = mask
            if kind == "bounded":
                size = (mask.abs() / bound).clamp_max(1 - 1e-6)
                wanted = bound * torch.atanh(size) * mask.sgn()
            parts = torch.view_as_real(wanted).movedim(-1, 3)
        return parts[..., :-1, :].flatten(1, 3)

    network.core.forward = core
    return network


def distortion(kind: str, bound: float = 1.0) -> float:
    """Return the error of the oracle in dB, relative to the stems."""
    stems = instruments()
    estimates = with_oracle(kind, stems, bound)(stems.sum(1))
    return float(20 * torch.log10((estimates - stems).norm() / stems.norm()))


def test_an_oracle_complex_mask_reconstructs_exactly():
    assert distortion("complex") < -80


def test_an_oracle_magnitude_mask_does_not():
    assert distortion("magnitude") > -10


def test_a_bounded_mask_comes_closer_as_its_bound_grows():
    one, two, ten = (distortion("bounded", bound) for bound in (1.0, 2.0, 10.0))
    assert ten < two - 3 < one - 6
    assert one < distortion("magnitude") - 3


@pytest.mark.parametrize("kind", ["complex", "bounded", "magnitude"])
def test_masks_are_of_their_kind(kind):
    network = reference.network("complex_unet" if kind == "complex" else f"complex_unet_{kind}")
    parts = 10 * torch.randn(2, 2 * network.parts, 5, 7, generator=torch.manual_seed(0))
    mask = network.masks(parts)
    assert mask.shape == (2, 2, network.channels, 5, 7)
    assert mask.is_complex() == (kind != "magnitude")
    if kind == "complex":
        pairs = torch.view_as_real(mask).movedim(-1, 3)
        torch.testing.assert_close(pairs.flatten(1, 3), parts)
    else:
        assert mask.abs().max() < network.bound * (1 + 1e-6)


@pytest.mark.parametrize("options", [{"mask": "phase"}, {"bound": 0.0}, {"n_fft": 2000}])
def test_refuses_impossible_options(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        build_network("complex_unet", stems=["a"], **options)
