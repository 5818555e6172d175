"""The oracles: what each kind of mask can and can't do."""

import pytest
import torch
from torch import Tensor

from separator.errors import AudioError
from separator.evaluation.oracles import ORACLES, ideal_complex_mask, ideal_ratio_mask
from separator.evaluation.ratios import usdr

MASKS = ("ibm1", "ibm2", "irm1", "irm2", "icm")
SEPARATING = (*MASKS, "mwf")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scores(name: str, references: Tensor) -> Tensor:
    return usdr(references, ORACLES[name](references.sum(0), references))


def apart_in_time() -> Tensor:
    """Stems that sound one after the other, further apart than a frame is long."""
    references = noise(2, 2, 40000)
    references[0, :, 16000:] = 0
    references[1, :, :24000] = 0
    return references


def apart_in_place() -> Tensor:
    """Stems on one channel each."""
    return noise(2, 2, 30000) * torch.eye(2)[..., None]


@pytest.mark.parametrize("name", SEPARATING)
@pytest.mark.parametrize("stems", [apart_in_time, apart_in_place])
def test_stems_that_do_not_overlap_are_separated(name, stems):
    references = stems()
    assert scores(name, references).min() > 60


@pytest.mark.parametrize("name", ORACLES)
def test_estimates_look_like_references(name):
    for shape in ((3, 2, 9001), (1, 1, 5000), (4, 3, 700), (2, 2, 1)):
        references = noise(*shape)
        estimates = ORACLES[name](references.sum(0), references.double())
        assert estimates.shape == shape and estimates.dtype == torch.float32
        assert estimates.isfinite().all()


@pytest.mark.parametrize("name", ORACLES)
def test_silence_stays_silent(name):
    silence = torch.zeros(2, 2, 6000)
    assert not ORACLES[name](silence[0], silence).any()


def test_the_complex_mask_alone_reconstructs_stems_that_overlap():
    """A mask of magnitudes leaves the mixture's phase, which isn't that of either stem."""
    references = noise(2, 1, 30000)
    mixture = references.sum(0)
    exact = ideal_complex_mask(mixture, references, bound=torch.inf)
    torch.testing.assert_close(exact, references, rtol=0, atol=1e-4)
    assert scores("icm", references).min() > 20
    for name in ("mixture", "ibm1", "ibm2", "irm1", "irm2", "mwf"):
        assert scores(name, references).max() < 12, name


def test_a_bounded_mask_cannot_undo_cancellation():
    stem = noise(2, 20000)
    references = torch.stack([stem, -0.99 * stem])  # a hundred times the mixture
    mixture = references.sum(0)
    bounded = ideal_complex_mask(mixture, references, bound=10.0)
    torch.testing.assert_close(bounded[0], 10 * mixture, rtol=0, atol=1e-4)
    torch.testing.assert_close(bounded[1], -10 * mixture, rtol=0, atol=1e-4)


def test_masks_of_stems_in_proportion_are_known():
    signal = noise(2, 20000)
    references = torch.stack([2.2 * signal, signal])
    mixture = references.sum(0)
    gains = {
        "mixture": (3.2, 3.2),
        "ibm1": (3.2, 0.0),  # 2.2 > 3.2 / 2
        "ibm2": (0.0, 0.0),  # 2.2^2 < 3.2^2 / 2
        "irm1": (2.2, 1.0),
        "irm2": (3.2 * 4.84 / 5.84, 3.2 / 5.84),
        "icm": (2.2, 1.0),
    }
    for name, expected in gains.items():
        estimates = ORACLES[name](mixture, references)
        for estimate, gain in zip(estimates, expected, strict=True):
            torch.testing.assert_close(estimate, gain * signal, rtol=0, atol=1e-4)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_ratio_masks_share_the_mixture(power):
    references = noise(4, 2, 20000)
    estimates = ideal_ratio_mask(references.sum(0), references, power)
    torch.testing.assert_close(estimates.sum(0), references.sum(0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SEPARATING)
def test_what_is_not_referenced_counts_as_a_stem(name):
    stems = apart_in_time()
    estimates = ORACLES[name](stems.sum(0), stems[:1])
    assert usdr(stems[:1], estimates) > 60


def test_wiener_filter_uses_the_places_of_stems():
    """Stems panned to two angles overlap everywhere, and yet two channels tell them apart."""
    angles = torch.tensor([[1.0, 0.2], [0.2, 1.0]])
    references = angles[..., None] * noise(2, 1, 30000)
    assert scores("mwf", references).min() > scores("irm2", references).max() + 20


@pytest.mark.parametrize("name", SEPARATING)
def test_oracles_beat_the_mixture(name):
    references = torch.cumsum(noise(4, 2, 20000), dim=-1)
    references -= references.mean(dim=-1, keepdim=True)
    assert (scores(name, references) > scores("mixture", references)).all()


@pytest.mark.parametrize("gain", [2.0**-13, 2.0**13])  # exact: no bin changes sides
@pytest.mark.parametrize("name", MASKS)
def test_masks_do_not_mind_the_level(name, gain):
    references = noise(2, 1, 9000)
    estimates = ORACLES[name](references.sum(0), references)
    scaled = ORACLES[name](gain * references.sum(0), gain * references)
    torch.testing.assert_close(scaled / gain, estimates, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ORACLES)
def test_what_does_not_belong_together_is_an_error(name):
    references = noise(3, 2, 100)
    for shape in ((2, 99), (1, 100), (1, 2, 100)):
        with pytest.raises(AudioError) as error:
            ORACLES[name](torch.ones(shape), references)
        assert str(shape) in str(error.value) and str((3, 2, 100)) in str(error.value)
    with pytest.raises(AudioError, match="NaN or infinite"):
        ORACLES[name](references.sum(0), references / 0)
