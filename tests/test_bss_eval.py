"""BSSEval against museval, against closed forms and against its own definition."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from separator.errors import AudioError, ConfigError
from separator.evaluation import bss_eval as module
from separator.evaluation.bss_eval import bss_eval

try:  # its import needs the programs ffmpeg and ffprobe
    from museval.metrics import bss_eval as official
except (ImportError, RuntimeError):
    official = None

oracle = pytest.mark.skipif(official is None, reason="museval can't be imported")


def song(seed=0, sources=3, channels=2, length=4000, correlation=0.0, noise=0.1):
    """Coloured references that share a part, and estimates with every kind of error."""
    rng = np.random.default_rng(seed)
    references = rng.standard_normal((sources, channels, length))
    references[:, :, 1:] += np.linspace(-0.9, 0.9, sources)[:, None, None] * references[:, :, :-1]
    references += correlation * references.sum(axis=(0, 1))
    estimates = references + 0.2 * np.roll(references, 1, axis=0)
    estimates[:, :, 2:] += 0.3 * references[:, ::-1, :-2]
    estimates += noise * rng.standard_normal(estimates.shape)
    return torch.from_numpy(references), torch.from_numpy(estimates)


def museval(references, estimates, *, window, hop, filter_length, framewise_filters=False):
    """The official numbers, (4, sources, frames)."""
    result = official(
        references.double().numpy().transpose(0, 2, 1),
        estimates.double().numpy().transpose(0, 2, 1),
        window=window,
        hop=hop,
        filters_len=filter_length,
        framewise_filters=framewise_filters,
    )
    return torch.from_numpy(np.stack(result[:4]))


def least_squares(references, estimates, filter_length):
    """BSSEval of one frame by its definition, with projections from singular value decompositions.

    They see the delayed signals themselves, so that singular systems do not trouble them.
    """

    def basis(signals):
        delayed = [
            pad(s, (k, filter_length - 1 - k)) for s in signals for k in range(filter_length)
        ]
        u, s, _ = torch.linalg.svd(torch.stack(delayed, dim=1), full_matrices=False)
        return u[:, s > 1e-9 * s[0]]

    def decibels(signal, error):
        return 10 * torch.log10(signal.square().sum() / error.square().sum())

    joint = basis(references.flatten(0, 1))
    scores = []
    for reference, estimate in zip(references, estimates, strict=True):
        single = basis(reference)
        s, e = (pad(x, (0, filter_length - 1)).T for x in (reference, estimate))
        p_single, p_joint = single @ (single.T @ e), joint @ (joint.T @ e)
        pairs = (
            (s, e - s),
            (s, p_single - s),
            (p_single, p_joint - p_single),
            (p_joint, e - p_joint),
        )
        scores.append(torch.stack([decibels(*pair) for pair in pairs]))
    return torch.stack(scores, dim=1)


def assert_same(actual, expected, tolerance=1e-3):
    torch.testing.assert_close(
        torch.stack(actual), expected, rtol=0, atol=tolerance, equal_nan=True
    )


CASES = {
    "plain": {},
    "mono": {"channels": 1},
    "three channels": {"channels": 3, "sources": 2},
    "one source": {"sources": 1},
    "many sources": {"sources": 6},
    "correlated": {"correlation": 10.0},
    "nearly perfect": {"noise": 1e-4},
    "noisy": {"noise": 10.0},
    "shorter than a window": {"length": 800},
    "shorter than a filter": {"length": 20, "sources": 1, "channels": 1},
}


@oracle
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("framewise", [False, True], ids=["v4", "v3"])
def test_equals_museval(case, framewise):
    options = {"window": 1000, "hop": 700, "filter_length": 24, "framewise_filters": framewise}
    signals = song(**CASES[case])
    assert_same(bss_eval(*signals, **options), museval(*signals, **options))


@oracle
def test_equals_museval_with_512_taps():
    options = {"window": 10000, "hop": 10000, "filter_length": 512}
    signals = [x.float() for x in song(sources=2, length=25000, correlation=0.5)]
    assert_same(bss_eval(*signals, **options), museval(*signals, **options))


@oracle
@pytest.mark.parametrize("gain", [1e-7, 1e5])
def test_equals_museval_on_faint_and_loud_signals(gain):
    """museval adds the machine epsilon to the Gram matrix, which faint signals feel."""
    options = {"window": 1500, "hop": 1500, "filter_length": 16}
    signals = [gain * x for x in song()]
    assert_same(bss_eval(*signals, **options), museval(*signals, **options))


@oracle
def test_equals_museval_on_an_ill_conditioned_system():
    """Two sources that differ by a ten-thousandth: the Gram matrix has a condition near 1e9."""
    options = {"window": 1500, "hop": 1500, "filter_length": 16}
    references, estimates = song()
    references[1] = references[0] + 1e-4 * references[1]
    assert_same(
        bss_eval(references, estimates, **options), museval(references, estimates, **options)
    )


@oracle
def test_equals_museval_on_silent_frames():
    """A frame is NaN for all sources if one reference or estimate is silent in it.

    Out-of-phase channels, whose sum is zero, count as silent: a convention of museval's.
    """
    options = {"window": 500, "hop": 500, "filter_length": 16}
    references, estimates = song()
    references[0, :, 400:1600] = 0.0
    references[1, 0, 2500:3000] = -references[1, 1, 2500:3000]
    estimates[2, :, 3500:] = 0.0
    scores = bss_eval(references, estimates, **options)
    assert scores.sdr[0].isnan().tolist() == [False, True, True, False, False, True, False, True]
    assert_same(scores, museval(references, estimates, **options))


def singular_cases():
    references, estimates = song(length=1200)
    centred = references.clone()
    centred[0, 1] = centred[0, 0]
    spectrum = torch.fft.rfft(references)
    spectrum[..., 300:] *= 1e-9
    return {
        "equal channels": (centred, estimates),
        "equal sources": (references[[0, 0, 2]], estimates),
        "low-passed": (torch.fft.irfft(spectrum), estimates),
    }


@pytest.mark.parametrize("case", singular_cases())
def test_singular_gram_matrix_gives_the_projection_itself(case):
    """Filters are not unique here, what they make of the references is.

    museval solves the singular system as it stands. With luck that works; on songs below a steep
    low-pass its ISR falls to -70 dB, and an exactly singular matrix stops it. Thus the judge here
    is the definition.
    """
    references, estimates = singular_cases()[case]
    scores = bss_eval(references, estimates, window=1200, filter_length=12)
    assert_same([x[:, 0] for x in scores], least_squares(references, estimates, 12))


@oracle
def test_museval_is_unstable_below_a_low_pass():
    """A common gain changes nothing but rounding errors, and with them museval's scores.

    Thus agreement can't be asked for where whole octaves are empty, as below a codec's low-pass.
    """
    references, estimates = song(sources=2, length=3000)
    spectrum = torch.fft.rfft(references * torch.hann_window(3000, dtype=torch.float64))
    spectrum[..., 375:] = 0.0
    references = torch.fft.irfft(spectrum)
    options = {"window": 3000, "hop": 3000, "filter_length": 32}

    def change_by_gain(metric):
        scores = [metric(g * references, g * estimates, **options) for g in (1.0, 1.1)]
        return (torch.stack([*scores[0]]) - torch.stack([*scores[1]])).abs().max()

    assert change_by_gain(museval) > 0.1
    assert change_by_gain(bss_eval) < 0.1 * change_by_gain(museval)


def test_closed_form():
    """References are impulses further apart than a filter reaches: each part is orthogonal."""
    references = torch.zeros(2, 1, 1000, dtype=torch.float64)
    references[0, 0, 100] = references[1, 0, 400] = 1.0
    estimates = torch.zeros_like(references)
    estimates[0, 0, 100], estimates[0, 0, 105] = 0.8, 0.4  # a filter of the source
    estimates[0, 0, 402] = 0.2  # of the other one
    estimates[0, 0, 900] = 0.1  # of none
    estimates[1] = 0.5 * references[1]
    estimates[1, 0, 99] = 0.5
    scores = bss_eval(references, estimates, window=1000, filter_length=10)
    first = [score[0, 0].item() for score in scores]
    parts = 0.04 + 0.16, 0.04, 0.01  # spatial, interference, artifacts
    ratios = [1 / sum(parts), 1 / parts[0], 0.8 / parts[1], 0.84 / parts[2]]
    assert first == pytest.approx([10 * math.log10(ratio) for ratio in ratios])
    sdr, isr, sir, sar = (score[1, 0].item() for score in scores)
    ratios = [1 / (0.25 + 0.25), 1 / 0.25, 0.25 / 0.25]
    assert [sdr, isr, sar] == pytest.approx([10 * math.log10(ratio) for ratio in ratios])
    assert sir > 250  # there is nothing of the first source in the second estimate


def test_filtered_source_has_no_interference_and_no_artifacts():
    """The sum of delayed channels of one source, within reach of the filters."""
    references, _ = song(length=3000)
    references[..., -30:] = 0.0
    estimates = references.clone()
    estimates[0, 0] = references[0, 1].roll(7) - 0.5 * references[0, 0].roll(3)
    scores = bss_eval(references, estimates, window=3000, filter_length=8)
    assert scores.isr[0, 0] < 10
    assert scores.sir[0, 0] > 150
    assert scores.sar[0, 0] > 150


def test_perfect_estimate_is_infinitely_good():
    references, _ = song()
    assert (bss_eval(references, references, window=1000, filter_length=8).sdr == torch.inf).all()


def test_scores_do_not_depend_on_gain_or_order():
    references, estimates = song()
    options = {"window": 1000, "hop": 1000, "filter_length": 16}
    scores = torch.stack(bss_eval(references, estimates, **options))
    assert_same(bss_eval(8 * references, 8 * estimates, **options), scores, 1e-9)
    order = [2, 0, 1]
    assert_same(bss_eval(references[order], estimates[order], **options), scores[:, order], 1e-9)
    assert_same(bss_eval(references.flip(1), estimates.flip(1), **options), scores, 1e-9)


@pytest.mark.parametrize("framewise", [False, True])
def test_scores_do_not_depend_on_chunks_and_threads(framewise, monkeypatch):
    signals = song(length=30000)
    options = {"window": 5000, "filter_length": 16, "framewise_filters": framewise}
    scores = torch.stack(bss_eval(*signals, hop=2500, **options))
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(module, "_FACTOR_BYTES", 1)
    monkeypatch.setattr(module, "_FFT", 512)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert_same(bss_eval(*signals, hop=2500, **options), scores, 1e-9)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_what_is_left_after_the_last_window_is_not_scored():
    signals = song(length=3999)
    assert bss_eval(*signals, window=1000, hop=500, filter_length=4).sdr.shape == (3, 6)
    assert bss_eval(*signals, window=3999, hop=1, filter_length=4).sdr.shape == (3, 1)
    assert bss_eval(*signals, window=9999, hop=1, filter_length=4).sdr.shape == (3, 1)


def test_inputs_are_left_as_they_were():
    signals = song()
    copies = [x.clone() for x in signals]
    bss_eval(*signals, window=1000, filter_length=8)
    assert all(torch.equal(x, copy) for x, copy in zip(signals, copies, strict=True))


def test_unequal_shapes_are_an_error():
    references, estimates = song()
    for wrong in (estimates[..., :-1], estimates[:2], estimates[:, :1]):
        with pytest.raises(AudioError, match=r"\(3, 2, 4000\).*can't be compared"):
            bss_eval(references, wrong)
    with pytest.raises(AudioError, match="stems, channels, time"):
        bss_eval(references[0], estimates[0])
    with pytest.raises(AudioError, match="stems, channels, time"):
        bss_eval(references[..., :0], estimates[..., :0])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_samples_that_are_not_finite_are_an_error(value):
    references, estimates = song()
    estimates[1, 0, 17] = value
    with pytest.raises(AudioError, match="estimates hold samples that are NaN or infinite"):
        bss_eval(references, estimates)


@pytest.mark.parametrize("option", ["window", "hop", "filter_length"])
def test_empty_windows_are_an_error(option):
    with pytest.raises(ConfigError, match=f"{option}=0"):
        bss_eval(*song(), **{option: 0})
