import pytest
import torch

from separator.errors import ConfigError
from separator.spectral.stft import STFT

CONVENTIONS = [
    {"n_fft": 512, "hop_length": 128},
    {"n_fft": 512, "hop_length": 111},
    {"n_fft": 512, "hop_length": 110, "win_length": 300},
    {"n_fft": 512, "hop_length": 256, "normalized": True},
    {"n_fft": 768, "hop_length": 512},
    {"n_fft": 512, "hop_length": 256, "window": None},
    {"n_fft": 510, "hop_length": 100, "window": None, "normalized": True},
]
LENGTHS = (1, 2, 100, 255, 256, 257, 511, 512, 1013, 4096, 7919, 8191)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("length", LENGTHS)
def test_inverse_restores_any_length(convention, length):
    stft, signal = STFT(**convention), noise(2, 3, length)
    restored = stft.inverse(stft(signal), length)
    torch.testing.assert_close(restored, signal, atol=1e-5, rtol=0)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("length", LENGTHS)
def test_inverse_amplifies_no_sample_of_a_changed_spectrogram(convention, length):
    stft, signal = STFT(**convention), noise(1, 1, length)
    spectrogram = stft(signal)
    turned = spectrogram * torch.exp(2j * torch.pi * torch.rand(spectrogram.shape))
    assert stft.inverse(turned, length).abs().max() < 4 * signal.abs().max()


@pytest.mark.parametrize("window", ["hann", None])
@pytest.mark.parametrize("normalized", [False, True])
def test_agrees_with_torch(window, normalized):
    signal = noise(2, 1013)
    values = torch.hann_window(512) if window else torch.ones(512)
    expected = torch.stft(
        signal, 512, 110, window=values, normalized=normalized, return_complex=True
    )
    stft = STFT(512, 110, window=window, normalized=normalized)
    assert torch.equal(stft(signal[None])[0], expected)


@pytest.mark.parametrize(("window", "sum_of_window"), [("hann", 256), (None, 512)])
def test_cosine_on_a_bin_has_half_the_sum_of_the_window(window, sum_of_window):
    time = torch.arange(4096)
    cosine = torch.cos(2 * torch.pi * 40 / 512 * time).view(1, 1, -1)
    magnitude = STFT(512, 128, window=window)(cosine).abs()[0, 0, :, 8]
    assert magnitude.argmax() == 40
    assert magnitude[40].item() == pytest.approx(sum_of_window / 2, rel=1e-4)
    assert magnitude[50:].max() < 1e-2


def test_normalized_keeps_the_energy_of_a_frame():
    signal = noise(1, 1, 512 * 9)
    frame = STFT(512, 256, window=None, normalized=True)(signal)[0, 0, :, 8]
    both_sides = frame.abs().square().sum() * 2 - frame[[0, -1]].abs().square().sum()
    samples = signal[0, 0, 4 * 512 - 256 : 4 * 512 + 256]
    torch.testing.assert_close(both_sides, samples.square().sum())


def test_computes_in_float32_under_autocast():
    stft, signal = STFT(512, 128), noise(1, 2, 2000)
    expected = stft(signal)
    with torch.autocast("cpu", torch.bfloat16):
        spectrogram = stft(signal)
        restored = stft.inverse(spectrogram, 2000)
    assert torch.equal(spectrogram, expected)
    torch.testing.assert_close(restored, signal, atol=1e-5, rtol=0)


def test_window_stays_float32_and_out_of_the_state():
    stft = STFT(512, 128).to(torch.bfloat16)
    assert torch.equal(stft.window, torch.hann_window(512))
    assert not stft.state_dict()


def test_leading_dimensions_of_the_inverse_are_free():
    stft, signal = STFT(512, 128), noise(6, 2, 700)
    spectrogram = stft(signal).unflatten(0, (2, 3))
    torch.testing.assert_close(
        stft.inverse(spectrogram, 700), signal.unflatten(0, (2, 3)), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(("hop", "win"), [(0, 512), (385, 512), (128, 1024)])
def test_refuses_impossible_sizes(hop, win):
    with pytest.raises(ConfigError, match="hop_length"):
        STFT(512, hop, win)


def test_the_energy_of_the_window_scales_as_in_torchaudio():
    """At -46 dB, where an epsilon behind it would notice another scale."""
    torchaudio = pytest.importorskip("torchaudio")
    options = {"n_fft": 256, "hop_length": 64, "normalized": True, "pad_mode": "constant"}
    forth = torchaudio.transforms.Spectrogram(**options, power=None)
    back = torchaudio.transforms.InverseSpectrogram(**options)
    signal = 0.005 * torch.randn(1, 2, 1000)
    ours = STFT(256, 64, normalized="window", pad_mode="constant")
    spectrogram = ours(signal)
    torch.testing.assert_close(spectrogram, forth(signal), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours.inverse(spectrogram, 1000), back(spectrogram, 1000))
