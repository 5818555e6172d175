"""Both networks of vocal-remover, and the multi-band transform in front of them."""

import pytest
import reference
import torch
from torch import nn

from separator.errors import ConfigError
from separator.networks import build_network
from separator.networks.multiband import MultiBand, ramp, rolloff_gains
from separator.networks.polyphase import Resampler
from separator.stream.facts import UNKNOWN
from separator.stream.inference import Plan
from separator.stream.model import Solo
from separator.stream.progress import Monitor
from separator.stream.runner import Runner

NAMES = ("vr_aspp", "vr_lstm")
#: Bands of Ultimate Vocal Remover's "4band_v3", the usual ones.
FOUR_BANDS = [
    {"n_fft": 640, "hop_length": 80, "crop": [0, 85], "lowpass": [24, 52]},
    {"n_fft": 320, "hop_length": 80, "crop": [4, 87], "highpass": [12, 26], "lowpass": [30, 61]},
    {
        "n_fft": 512,
        "hop_length": 160,
        "crop": [17, 216],
        "highpass": [24, 49],
        "lowpass": [138, 209],
    },
    {"n_fft": 960, "hop_length": 480, "crop": [78, 383], "highpass": [86, 131]},
]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def error(estimates: torch.Tensor, expected: torch.Tensor) -> float:
    return float((estimates - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_reference(name):
    """From the waveform to the waveforms of both stems."""
    assert reference.relative_error(name) < reference.ROUNDING


@pytest.mark.parametrize(
    ("name", "sizes", "expected"),
    [
        ("vr_aspp", {"width": 32}, (459, 7938138, 1101805220)),
        ("vr_aspp", {"width": 32, "branches": 7}, (515, 8642914, 974557602)),
        (
            "vr_aspp",
            {"width": 32, "scales": 5, "branches": 6},
            (559, 33122026, 3758055551),
        ),
        ("vr_aspp", {"width": 64}, (459, 31651434, 2400805324)),
        ("vr_aspp", {"width": 128, "branches": 7}, (515, 137480338, 2002577109)),
        ("vr_lstm", {"width": 64}, (689, 55848415, 3765604108)),
        ("vr_lstm", {"width": 48}, (689, 31721283, 608586958)),
    ],
)
def test_has_the_keys_and_shapes_of_public_files(name, sizes, expected):
    front_end = {"bands": FOUR_BANDS, "bins": 768 if name == "vr_aspp" else 672}
    with torch.device("meta"):
        network = build_network(name, stems=["a", "b"], front_end=front_end, **sizes)
    assert reference.layout(network.state_dict()) == expected


@pytest.mark.parametrize("name", NAMES)
def test_stems_sum_to_what_the_bands_hold(name):
    network = reference.network(name)
    network.mirror = False
    mixture = reference.mixture(5000)
    with torch.inference_mode():
        total = network(mixture).sum(1)
        held = network.front_end.inverse(network.front_end(mixture), 5000)
    assert error(total, held) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_estimates_follow_the_level(name):
    network = reference.network(name)
    mixture = reference.mixture(5000)
    with torch.inference_mode():
        assert error(network(100 * mixture), 100 * network(mixture)) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_knows_the_loudest_of_the_whole_track(name):
    """A quiet segment is seen as a part of its track, not as loud as can be."""
    network = reference.network(name)
    hop = network.front_end.hop_length
    size = 100 * hop
    track = reference.mixture(5 * size)
    track[..., : 3 * size] *= 0.01
    runner = Runner(network)
    plan = Plan(size, overlap=0.1, recipe="demucs")
    model = Solo(network.stems, network.stems, runner, plan).only(network.stems)
    assert model.waits and not model.needs_statistics

    def separated(track):
        blocks = (block.unsqueeze(0) for block in track[0].split(777, dim=-1))
        return model.separate(blocks, Monitor(), UNKNOWN)

    at_once = zip(separated(track), separated(100 * track), strict=True)  # each has its own level
    found, louder = (torch.cat(pieces, dim=-1) for pieces in zip(*at_once, strict=True))
    assert error(louder, 100 * found) < 1e-4
    level = network.loudest(track)
    with torch.inference_mode():
        whole = network(track)
        quiet = slice(size, 2 * size)
        assert error(found[..., quiet], whole[..., quiet]) < 0.02
        alone = network(track[..., quiet])
        told = network(track[..., quiet], loudest=float(level))
    middle = slice(size // 4, -size // 4)
    expected = whole[..., quiet][..., middle]
    assert error(told[..., middle], expected) < error(alone[..., middle], expected)


def test_bands_give_back_what_they_hold():
    """A tone in each band, and in what neighbours share, is neither changed nor moved."""
    front = MultiBand(bands=FOUR_BANDS, channels=1)
    time = torch.arange(44_100) / 44_100
    for frequency in (110, 450, 1100, 3000, 5000, 10_000):
        tone = torch.sin(2 * torch.pi * frequency * time)[None, None]
        again = front.inverse(front(tone), tone.shape[-1])
        middle = slice(5000, -5000)
        assert error(again[..., middle], tone[..., middle]) < 0.01
    high = torch.sin(2 * torch.pi * 19_000 * time)[None, None]
    assert front.inverse(front(high), 44_100)[..., 5000:-5000].abs().max() < 0.01  # aliases


def test_bands_are_exact_under_autocast():
    """Half precision is for the cascade alone."""
    front = MultiBand(bands=[FOUR_BANDS[0] | {"channels": "mid_side"}, *FOUR_BANDS[1:]], channels=2)
    mixture = reference.mixture(5000)
    expected = front.inverse(front(mixture), 5000)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(front.inverse(front(mixture), 5000), expected)


@pytest.mark.parametrize("channels", ["mid_side", "mid_side_b2", "mid_side_c", "stereo_n"])
def test_channels_are_converted_and_back(channels):
    band = {"n_fft": 256, "hop_length": 64, "crop": [0, 129], "channels": channels}
    for reverse in (False, True):
        front = MultiBand(bands=[band], channels=2, reverse=reverse)
        mixture = reference.mixture(1500)
        assert error(front.inverse(front(mixture), 1500), mixture) < 1e-5
    sides = MultiBand(bands=[band | {"channels": None}], channels=2)
    assert not torch.allclose(front(mixture).abs(), sides(mixture).abs())


def test_gains():
    assert ramp(5, 0, 3).flatten().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    gains = rolloff_gains(6, 1, 4).flatten()
    second = 10 ** (-2.5 / 20)
    expected = [1, 1, second, 10 ** (-2 * (3.5 - second) / 20), 1, 1]
    torch.testing.assert_close(gains, torch.tensor(expected))


@pytest.mark.parametrize(("up", "down"), [(1, 2), (2, 1), (1, 3), (3, 16), (16, 3), (4, 2)])
def test_resamples_as_scipy_does(up, down):
    signal = pytest.importorskip("scipy.signal")
    x = torch.randn(2, 3, 501)
    expected = signal.resample_poly(x.double().numpy(), up, down, axis=-1)
    torch.testing.assert_close(
        Resampler(up, down)(x), torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(("up", "down"), [(1, 2), (3, 1), (3, 16), (1, 1)])
def test_a_low_tone_stays_and_a_high_one_goes(up, down):
    resampler = Resampler(up, down, "sinc")
    lower = min(1, up / down) / 2  # Nyquist's frequency at the lower rate
    time = torch.arange(8000)
    low = torch.sin(2 * torch.pi * 0.6 * lower * time)
    middle = slice(400, -400)
    expected = torch.sin(
        2 * torch.pi * 0.6 * lower * torch.arange(-(-8000 * up // down)) * down / up
    )
    assert (resampler(low) - expected)[middle].abs().max() < 2e-3
    if down > up:
        high = torch.sin(2 * torch.pi * 1.1 * lower * time)
        assert resampler(high)[100:-100].abs().max() < 1e-3


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"stems": ["a"]}, "two stems"),
        ({"window_frames": 250}, "multiple"),
        ({"window_frames": 256}, "more than 256"),
        ({"branches": 4}, "5, 6 or 7"),
        ({"front_end": {"bands": [{"n_fft": 64, "hop_length": 16, "crop": [0, 40]}]}}, "33 bins"),
        ({"front_end": {"bands": [{"n_fft": 64, "hop_length": 16, "crop": [0, 20]}]}}, "multiple"),
        ({"front_end": {"bands": [], "bins": 64}}, "at least one"),
        ({"front_end": {}}, "bands"),
        ({"front_end": {"bands": FOUR_BANDS, "bins": 32}}, "672 bins"),
        ({"front_end": {"bands": [FOUR_BANDS[0] | {"channels": "side"}]}}, "mid_side"),
        ({"front_end": {"bands": [FOUR_BANDS[0] | {"lpf": 3}]}}, "lpf"),
        ({"front_end": {"bands": [FOUR_BANDS[0] | {"lowpass": [9, 9]}]}}, "ramp"),
    ],
)
def test_refuses_what_does_not_fit(options, word):
    parameters = reference.CASES["vr_aspp"].parameters | options
    with pytest.raises(ConfigError, match=word), torch.device("meta"):
        build_network("vr_aspp", **parameters)


def test_norms_in_the_weights_change_nothing():
    network: nn.Module = reference.network("vr_aspp")
    x = torch.rand(1, 2, 64, 32)
    expected = network.core(x).detach()
    with torch.inference_mode():
        assert error(network.core(x), expected) < 1e-5
