"""The metrics against closed forms, their definitions and the programs they come from."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from separator.errors import AudioError, ModelError
from separator.evaluation import checks, spectral
from separator.evaluation import log_wmse as log_wmse_module
from separator.evaluation.bss_eval import bss_eval
from separator.evaluation.embeddings import Embedding, embedding_distance, load_embedding
from separator.evaluation.log_wmse import log_wmse
from separator.evaluation.metrics import METRICS, Comparison, embedding_metric
from separator.evaluation.permutations import best_order
from separator.evaluation.ratios import frame_median, sdr_improvement, si_sdr, usdr
from separator.evaluation.spectral import bleedless_fullness, l1_freq, multi_resolution_stft

BEST_LOG_WMSE = -4 * math.log(1e-8)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tones(*pairs: tuple[float, float], length: int = 30001) -> Tensor:
    """Return the sum of sines of (frequency, amplitude), at 44100 Hz, in float64."""
    time = torch.arange(length, dtype=torch.float64) / 44100
    return sum((a * torch.sin(2 * math.pi * f * time + f) for f, a in pairs), torch.zeros(length))


@pytest.fixture
def song() -> tuple[Tensor, Tensor]:
    """Two stems and estimates of them; their scores elsewhere are known."""
    voice = [tones((220, 0.3), (3000, 0.05)), tones((221, 0.2), (9000, 0.02))]
    drums = [tones((60, 0.4), (600, 0.1)), tones((61, 0.3), (12000, 0.04))]
    references = torch.stack([torch.stack(voice), torch.stack(drums)]).float()
    return references, 0.9 * references + 0.03 * references.flip(0)


def compare(references: Tensor, estimates: Tensor, **options) -> Comparison:
    return Comparison(references, estimates, references.sum(0), **options)


# Ratios


@pytest.mark.parametrize("decibels", [-10.0, 0.0, 7.5, 60.0])
@pytest.mark.parametrize("length", [1, 1000, 150001])
def test_usdr_of_scaled_noise_is_known(decibels, length):
    references, error = noise(2, 2, length).double(), noise(2, 2, length, seed=1).double()
    size = (references.square().sum((1, 2)) / error.square().sum((1, 2))).sqrt()
    estimates = references + 10 ** (-decibels / 20) * size[:, None, None] * error
    scores = usdr(1e3 * references, 1e3 * estimates)  # loud: what is added does not count
    torch.testing.assert_close(scores, torch.full((2,), decibels).double(), rtol=0, atol=1e-4)


def test_usdr_of_perfect_estimates_is_finite():
    references = torch.ones(1, 1, 10)
    assert usdr(references, references).item() == pytest.approx(80, abs=1e-6)  # 10 / 1e-7


def test_usdr_counts_channels_together():
    references = torch.ones(1, 2, 100)
    estimates = references.clone()
    estimates[:, 1] = 0  # half of the energy is lost
    assert usdr(references, estimates).item() == pytest.approx(10 * math.log10(2), abs=1e-6)


def test_sdr_improvement_of_mixture_is_zero():
    references = noise(3, 2, 500)
    mixture = references.sum(0)
    assert sdr_improvement(references, mixture.expand_as(references), mixture).tolist() == [0] * 3
    halfway = (mixture + references) / 2
    torch.testing.assert_close(
        sdr_improvement(references, halfway, mixture),
        torch.full((3,), 20 * math.log10(2)).double(),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("gain", [1e-4, 1.0, -3.0])
def test_si_sdr_ignores_scale(gain):
    references = noise(2, 2, 3000).double()
    estimates = references + 0.3 * noise(2, 2, 3000, seed=1)
    expected = si_sdr(references, estimates)
    torch.testing.assert_close(si_sdr(references, gain * estimates), expected)
    torch.testing.assert_close(si_sdr(gain * references, estimates), expected)


def test_si_sdr_of_orthogonal_error_is_known():
    reference = torch.tensor([3.0, 4.0, 0.0]).view(1, 1, 3)
    error = torch.tensor([0.0, 0.0, 0.5]).view(1, 1, 3)
    assert si_sdr(reference, 7 * (reference + error)).item() == pytest.approx(20)


def test_si_sdr_has_one_gain_for_all_channels():
    references = torch.ones(1, 2, 100)
    estimates = references.clone()
    estimates[:, 1] = 0  # best gain 1/2: |s/2|^2 = |s/2 - e|^2
    assert si_sdr(references, estimates).item() == pytest.approx(0, abs=1e-9)


def test_frame_median_ignores_frames_without_a_ratio():
    frames = noise(3, 8).double()
    frames[0, :3], frames[1, 5], frames[2] = torch.nan, torch.inf, torch.nan
    expected = [np.median(row[np.isfinite(row)]) for row in frames[:2].numpy()]
    assert frame_median(frames)[:2].tolist() == pytest.approx(expected)
    assert frame_median(frames)[2].isnan()


# Spectra


def test_l1_freq_of_scaled_constant_is_known():
    references = torch.ones(1, 2, 20000)  # all in the lowest of 1025 bins: 2048, then 0.9 * 2048
    score = l1_freq(references, 0.9 * references).item()
    assert score == pytest.approx(100 / (1 + 10 * 0.1 * 2048 / 1025), rel=1e-5)
    assert l1_freq(references, references).item() == 100


@pytest.mark.parametrize("gain", [0.25, 1.0, 3.0])
def test_multi_resolution_stft_of_scaled_noise_is_known(gain):
    references = 100 * noise(2, 2, 20000)  # far above the floor
    expected = abs(1 - gain) + abs(math.log(gain))
    scores = multi_resolution_stft(references, gain * references)
    assert scores.tolist() == pytest.approx([expected] * 2, rel=1e-4)


def test_multi_resolution_stft_of_silence_is_finite():
    scores = multi_resolution_stft(noise(1, 1, 9000), torch.zeros(1, 1, 9000))
    assert 1 < scores.item() < 20  # spectral convergence is one


def test_bleedless_and_fullness_of_scaled_stems_are_known():
    references = noise(2, 2, 30000)
    percent = 100 / (1 + 20 * math.log10(2))
    for gain, bleedless, fullness in ((2.0, percent, 100), (0.5, 100, percent), (1.0, 100, 100)):
        scores = bleedless_fullness(references, gain * references)
        assert scores.bleedless.tolist() == pytest.approx([bleedless] * 2, rel=1e-5)
        assert scores.fullness.tolist() == pytest.approx([fullness] * 2, rel=1e-5)


def test_bleedless_and_fullness_follow_their_definition(song):
    """Without chunks, in terms of librosa."""
    import librosa

    def mel(signal: Tensor) -> np.ndarray:
        magnitude = np.abs(librosa.stft(signal.numpy(), n_fft=4096, hop_length=1024))
        filters = librosa.filters.mel(sr=44100, n_fft=4096, n_mels=512)
        return librosa.amplitude_to_db(filters @ magnitude, ref=1.0, amin=1e-10, top_db=80)

    scores = torch.stack(bleedless_fullness(*song), dim=1)
    differences = [mel(e) - mel(r) for r, e in zip(*song, strict=True)]
    expected = [(100 / (1 + d[d > 0].mean()), 100 / (1 - d[d < 0].mean())) for d in differences]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_spectra_equal_those_of_the_programs_they_come_from(song):
    """MSST at ccc011a, and auraloss 0.4.0 with the same resolutions."""
    np.testing.assert_allclose(l1_freq(*song), [49.702903, 45.474718], rtol=1e-5)
    np.testing.assert_allclose(multi_resolution_stft(*song), [0.2156392, 0.2201624], rtol=1e-5)
    bleedless, fullness = bleedless_fullness(*song)
    np.testing.assert_allclose(bleedless, [4.6272135, 4.974291], rtol=1e-4)
    np.testing.assert_allclose(fullness, [50.897102, 51.550518], rtol=1e-4)


def test_pieces_make_no_difference(song, monkeypatch):
    names = [name for name in METRICS if name[0] != "c"]  # BSSEval's pieces are tested elsewhere
    whole = {name: METRICS[name](compare(*song)) for name in names}
    monkeypatch.setattr(checks, "_CHUNK", 777)
    monkeypatch.setattr(spectral, "_CHUNK", 5 * 4096)
    monkeypatch.setattr(log_wmse_module, "_FFT", 2**13)
    for name in names:
        pieces = METRICS[name](compare(*song))
        torch.testing.assert_close(pieces, whole[name], rtol=1e-5, atol=1e-5)


# Log-WMSE


def test_log_wmse_equals_the_package(song):
    """log-wmse-audio-quality 0.2.0."""
    references, estimates = song
    mixture = references.sum(0)
    scores = log_wmse(references, estimates, mixture)
    np.testing.assert_allclose(scores, [19.1080608, 24.0536976], rtol=0, atol=1e-4)
    scores = log_wmse(references, estimates, mixture, sample_rate=48000)
    np.testing.assert_allclose(scores, [19.182106, 23.792953], rtol=0, atol=1e-4)


def test_log_wmse_scores_silence():
    mixture = noise(2, 9000)
    silence = torch.zeros(1, 2, 9000)
    assert log_wmse(silence, silence, mixture).item() == pytest.approx(BEST_LOG_WMSE)
    for gain in (0.01, 0.5):
        expected = -4 * math.log(gain**2 + 1e-8)
        score = log_wmse(silence, gain * mixture[None], mixture)
        assert score.item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("gain", [1e-4, 1e3])
def test_log_wmse_ignores_the_common_level(song, gain):
    references, estimates = song
    scaled = log_wmse(gain * references, gain * estimates, gain * references.sum(0))
    expected = log_wmse(references, estimates, references.sum(0))
    torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-4)


def test_log_wmse_does_not_hear_errors_68_db_below():
    mixture = tones((1000, 1.0)).float()[None]
    for decibels, heard in ((-60, True), (-75, False)):  # the peak is 3 dB above the RMS
        error = 10 ** (decibels / 20) * mixture[None]
        score = log_wmse(torch.zeros_like(error), error, mixture).item()
        assert (score < BEST_LOG_WMSE - 1) == heard
        assert heard or score > BEST_LOG_WMSE - 1e-3  # but for the onset at the edges


def test_log_wmse_weighs_errors_by_hearing():
    mixture = tones((1000, 1.0)).float()[None]
    errors = torch.stack([tones((f, 0.1)).float()[None] for f in (40, 3000, 18000)])
    low, middle, high = log_wmse(torch.zeros_like(errors), errors, mixture).tolist()
    assert middle < low and middle < high


def test_weighting_filter_has_its_design():
    """A shelf of +5 dB and a peak of 2.5 dB between two Butterworth filters."""
    turn = torch.tensor([0.0, math.pi / 2])
    shelf = log_wmse_module._high_shelf(turn, 1500, gain_db=5.0, q=1 / math.sqrt(2))
    assert shelf.tolist() == pytest.approx([1, 10 ** (5 / 20)], rel=1e-5)
    middle = torch.tensor([math.pi * 500 / 44100])
    peak = log_wmse_module._peak(middle, 500, gain_db=2.5, q=1.0)
    assert peak.item() == pytest.approx(10 ** (2.5 / 20), rel=1e-5)

    response = log_wmse_module.impulse_response().double()
    assert response.argmax() == 1999
    torch.testing.assert_close(response[1:1999], response[2000:3998].flip(0))  # zero phase
    gains = torch.fft.rfft(response, n=44100).abs()  # by Hz
    passed = gains / 10 ** (5 / 20)  # above the shelf
    assert passed[10000].item() == pytest.approx(0.5, rel=0.01)  # -3 dB, forwards and backwards
    assert gains[0] < 0.01 and gains[22050] < 0.01
    assert gains[120] == pytest.approx(math.sqrt(0.5), rel=0.02)


def test_log_wmse_of_a_silent_mixture():
    references, estimates = noise(2, 1, 100), noise(2, 1, 100, seed=1)
    comparison = Comparison(references, estimates, torch.zeros(1, 100))
    scores = METRICS["log_wmse"](comparison)
    assert scores.isnan().all()
    assert comparison.reasons(scores) == ("the mixture is silent",) * 2


def test_log_wmse_of_a_silent_channel():
    references, estimates = torch.zeros(1, 2, 5000), noise(1, 2, 5000)
    mixture = torch.stack([noise(5000, seed=1), torch.zeros(5000)])
    alone = log_wmse(references[:, :1], estimates[:, :1], mixture[:1]).item()
    both = log_wmse(references, estimates, mixture).item()
    assert both == pytest.approx((alone + BEST_LOG_WMSE) / 2)


# The registry


def test_metrics_improve_as_errors_shrink():
    references = torch.nn.functional.avg_pool1d(noise(2, 2, 44104), 5, 1)
    error = references.flip(0) + 0.1 * noise(*references.shape, seed=1)
    bad, good = (compare(references, references + gain * error) for gain in (0.5, 0.05))
    for name, metric in METRICS.items():
        better = metric(good) > metric(bad)
        assert bool((better == metric.higher_is_better).all()), name


def test_metrics_are_float64_of_each_stem():
    references = noise(2, 2, 9000)
    estimates = references + torch.tensor([0.1, 0.3]).view(2, 1, 1) * noise(2, 2, 9000, seed=1)
    comparison = compare(references, estimates)
    swapped = compare(references.flip(0), estimates.flip(0))
    for name, metric in METRICS.items():
        scores = metric(comparison)
        assert scores.shape == (2,) and scores.dtype == torch.float64, name
        assert scores[0] != scores[1], name
        torch.testing.assert_close(metric(swapped).flip(0), scores, rtol=1e-6, atol=1e-6)


def test_frames_are_measured_once():
    calls = []

    def engine(references: Tensor, estimates: Tensor, *, window: int, hop: int):
        calls.append((window, hop))
        return bss_eval(references, estimates, window=window, hop=hop, filter_length=8)

    references = noise(2, 1, 3500)
    estimates = references + 0.1 * noise(2, 1, 3500, seed=1)
    comparison = compare(references, estimates, sample_rate=1000, engine=engine)
    frames = bss_eval(references, estimates, window=1000, hop=1000, filter_length=8)
    names = ("csdr", "cisr", "csir", "csar")
    for name, ratios in zip(names, frames, strict=True):
        assert METRICS[name](comparison).tolist() == np.median(ratios, axis=1).tolist()
    assert calls == [(1000, 1000)]


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("length", [1, 130, 5001])
def test_any_length_has_scores(name, length):
    references = 1 + noise(1, 1, length).abs()
    scores = METRICS[name](compare(references, 0.5 * references))
    perfect_but_for_the_level = name in ("csir", "csar", "si_sdr")  # has infinite ratios
    assert scores.shape == (1,) and (scores.isfinite().all() or perfect_but_for_the_level)


@pytest.mark.parametrize("name", [name for name in METRICS if name != "log_wmse"])
def test_silent_references_have_no_score_but_a_reason(name):
    references, estimates = noise(3, 2, 4000), noise(3, 2, 4000, seed=1)
    references[1] = 0
    comparison = compare(references, estimates)
    scores = METRICS[name](comparison)
    assert scores[1].isnan()
    reasons = comparison.reasons(scores)
    assert reasons[1] == "the reference is silent"
    if name[0] != "c":  # BSSEval scores a frame only if all of its stems sound
        assert not scores[[0, 2]].isnan().any() and reasons[0] == reasons[2] == ""
    else:
        assert "no frame" in reasons[0]


def test_silent_estimates_have_a_reason():
    comparison = compare(noise(1, 1, 1000), torch.zeros(1, 1, 1000))
    scores = METRICS["si_sdr"](comparison)
    assert scores.isnan() and comparison.reasons(scores) == ("the estimate is silent",)


FUNCTIONS = {
    "usdr": usdr,
    "si_sdr": si_sdr,
    "l1_freq": l1_freq,
    "multi_resolution_stft": multi_resolution_stft,
    "bleedless_fullness": bleedless_fullness,
    "log_wmse": lambda r, e: log_wmse(r, e, torch.ones(2, 100)),
    "sdr_improvement": lambda r, e: sdr_improvement(r, e, torch.ones(2, 100)),
    "embedding": lambda r, e: embedding_distance(r, e, Embedding("same", lambda x: x, 44100)),
    "best_order": best_order,
    "Comparison": lambda r, e: Comparison(r, e, torch.ones(2, 100)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_cannot_be_compared_is_an_error(name):
    measure = FUNCTIONS[name]
    references = torch.ones(3, 2, 100)
    for shape in ((3, 2, 99), (3, 1, 100), (2, 2, 100), (2, 100)):
        with pytest.raises(AudioError) as error:
            measure(references, torch.ones(shape))
        assert str(tuple(references.shape)) in str(error.value) and str(shape) in str(error.value)
    with pytest.raises(AudioError, match=r"\(3, 2, 0\)"):
        measure(references[..., :0], references[..., :0])
    for value in (torch.nan, torch.inf):
        broken = references.clone()
        broken[1, 0, 50] = value
        with pytest.raises(AudioError, match="estimates hold samples that are NaN or infinite"):
            measure(references, broken)
        with pytest.raises(AudioError, match="references hold"):
            measure(broken, references)


def test_mixtures_of_another_shape_are_an_error():
    references = torch.ones(3, 2, 100)
    with pytest.raises(AudioError, match=r"\(2, 99\).*\(3, 2, 100\)"):
        Comparison(references, references, torch.ones(2, 99))
    with pytest.raises(AudioError, match="mixture hold"):
        Comparison(references, references, torch.full((2, 100), torch.nan))


# Orders


def test_best_order_finds_the_permutation():
    references = noise(4, 2, 500)
    order = [2, 0, 3, 1]
    estimates = references[order] + 0.5 * noise(4, 2, 500, seed=1)
    found = list(best_order(references, estimates))
    assert [order[i] for i in found] == [0, 1, 2, 3]
    torch.testing.assert_close(
        si_sdr(references, estimates[found]), si_sdr(references[order], estimates)[found]
    )


def test_best_order_gives_silent_references_what_is_left():
    references = noise(3, 1, 500)
    estimates = references.flip(0).clone()
    references[1] = 0
    assert best_order(references, estimates) == (2, 1, 0)


def test_best_order_may_mind_levels():
    references = torch.stack([torch.ones(1, 100), 2 * torch.ones(1, 100)])
    assert best_order(references, references.flip(0), usdr) == (1, 0)


# Embeddings


class Powers(nn.Module):
    """Embeds by the mean power of each hundred samples, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, signal: Tensor) -> Tensor:
        return self.weight * signal.unfold(-1, 100, 100).square().mean(-1)


def test_embedding_distance_is_a_mean_square():
    references = torch.ones(2, 2, 5000)
    estimates = references * torch.tensor([2.0, 3.0]).view(2, 1, 1)
    embedding = Embedding("powers", Powers(), 44100)
    assert embedding_distance(references, estimates, embedding).tolist() == [9, 64]
    metric = embedding_metric(embedding)
    assert metric.name == "powers MSE" and not metric.higher_is_better
    assert metric(compare(references, estimates)).tolist() == [9, 64]


def test_embedding_hears_mono_at_its_rate_in_parts():
    heard = []

    def embed(signal: Tensor) -> Tensor:
        heard.append(signal)
        return signal

    references = tones((100, 0.5), length=20 * 7000).float().repeat(1, 2, 1)
    references[:, 1] *= 3
    embedding_distance(references, references, Embedding("e", embed, 1000), sample_rate=2000)
    lengths = [tuple(x.shape) for x in heard]
    assert lengths == [(1, 35000)] * 4  # two parts of 35 s, of the reference and the estimate
    assert all(x.abs().max() == pytest.approx(1, abs=0.1) for x in heard)  # the channels' mean


def test_embeddings_are_read_from_files(tmp_path):
    references, estimates = torch.ones(1, 1, 500), 2 * torch.ones(1, 1, 500)
    doubled = Powers()
    doubled.weight.data *= 2
    torch.jit.trace(doubled, torch.ones(1, 500)).save(tmp_path / "powers.pt")
    save_file(doubled.state_dict(), tmp_path / "powers.safetensors")
    script = load_embedding(tmp_path / "powers.pt", name="p", sample_rate=44100)
    weights = load_embedding(
        tmp_path / "powers.safetensors", name="p", sample_rate=44100, network=Powers()
    )
    for embedding in (script, weights):
        assert embedding_distance(references, estimates, embedding).item() == 36


def test_files_without_an_embedding_are_an_error(tmp_path):
    options = {"name": "p", "sample_rate": 44100}
    with pytest.raises(ModelError, match="no file"):
        load_embedding(tmp_path / "missing.pt", **options)
    (tmp_path / "garbage.pt").write_bytes(b"garbage")
    torch.save(Powers().state_dict(), tmp_path / "state.pt")
    save_file({"other": torch.ones(1)}, tmp_path / "other.safetensors")
    for name in ("garbage.pt", "state.pt"):
        with pytest.raises(ModelError, match="isn't a TorchScript archive"):
            load_embedding(tmp_path / name, **options)
    for name in ("garbage.pt", "other.safetensors"):
        with pytest.raises(ModelError, match="don't fit Powers"):
            load_embedding(tmp_path / name, network=Powers(), **options)
