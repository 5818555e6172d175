import math

import numpy as np
import pytest
import torch
from scipy import signal

from separator.errors import ConfigError
from separator.schema import validate
from separator.training.data import effects
from separator.training.data.augmentation import (
    MIXTURE_EFFECTS,
    AugmentationOptions,
    Codec,
    Compressor,
    Distortion,
    Drop,
    Equalizer,
    Gain,
    Polarity,
    Remix,
    Repitch,
    Reverb,
    Swap,
    Varispeed,
    augment,
)

RATE = 44100
BANDS = (slice(0, 11000), slice(13000, 22050))  # Hz
ALWAYS = {
    "repitch": Repitch(chance=1.0),
    "speed": Varispeed(chance=1.0),
    "equalizer": Equalizer(chance=1.0),
    "compressor": Compressor(chance=1.0),
    "reverb": Reverb(chance=1.0, decay=(0.05, 0.1)),
    "swap": Swap(chance=1.0),
    "polarity": Polarity(chance=1.0),
    "remix": Remix(chance=1.0, group=4),
    "gain": Gain(chance=1.0),
    "drop": Drop(chance=0.5),
    "distortion": Distortion(chance=1.0, drive=(6.0, 12.0)),
    "codec": Codec(chance=1.0),
}
TOGETHER = {name: effect for name, effect in ALWAYS.items() if name != "speed"}
NOTHING = {  # effects without strength
    "repitch": Repitch(chance=1.0, semitones=0.0, tempo=0.0),
    "equalizer": Equalizer(chance=1.0, gain=0.0),
    "compressor": Compressor(chance=1.0, ratio=(1.0, 1.0)),
    "reverb": Reverb(chance=1.0, wet=(0.0, 0.0), decay=(0.1, 0.1)),
    "gain": Gain(low=0.0, high=0.0),
    "distortion": Distortion(chance=1.0, drive=(0.0, 0.0)),
    "codec": Codec(chance=1.0, coarseness=(0.0, 0.0), cutoff=(RATE / 2, RATE / 2)),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=1):
    return 0.1 * torch.randn(shape, generator=generator(seed))


def sine(frequency, seconds=1.0, channels=1):
    time = torch.arange(round(seconds * RATE)) / RATE
    return torch.sin(2 * math.pi * frequency * time).expand(1, channels, -1)


def level_db(audio):
    return 10 * math.log10(float(audio.square().mean()))


def frequency_of(audio):
    """Return the strongest partial in Hz."""
    time = audio.shape[-1]
    spectrum = torch.fft.rfft(audio.flatten(0, -2)[0] * torch.hann_window(time))
    return float(spectrum.abs().argmax()) * RATE / time


def numbers(*values):
    return torch.tensor(values)


def options_of(**chosen):
    return AugmentationOptions(**chosen)


@pytest.mark.parametrize("name", ALWAYS)
def test_a_seed_decides_everything(name):
    targets = noise(4, 2, 2, 6000)
    options = options_of(**{name: ALWAYS[name]})
    one, two, other = (augment(targets, options, generator(s), RATE) for s in (3, 3, 4))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    if name not in ("swap", "polarity"):  # which hit everything here
        assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize("name", ALWAYS)
def test_effects_change_what_they_should_and_nothing_else(name):
    targets = noise(4, 2, 2, 6000)
    before, state = targets.clone(), torch.get_rng_state()
    mixture, changed = augment(targets, options_of(**{name: ALWAYS[name]}), generator(), RATE)
    assert torch.equal(targets, before)
    assert torch.equal(torch.get_rng_state(), state)
    if name in MIXTURE_EFFECTS:
        assert torch.equal(changed, before)
        assert not torch.allclose(mixture, before.sum(1), atol=1e-4)
    else:
        torch.testing.assert_close(mixture, changed.sum(1))
        assert not torch.equal(changed, before)


@pytest.mark.parametrize("name", NOTHING)
def test_effects_without_strength_change_nothing(name):
    targets = noise(2, 2, 2, 5000)
    mixture, changed = augment(targets, options_of(**{name: NOTHING[name]}), generator(), RATE)
    torch.testing.assert_close(changed, targets, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(mixture, targets.sum(1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ALWAYS)
def test_no_chance_no_effect(name):
    targets = noise(2, 2, 2, 5000)
    options = options_of(**{name: ALWAYS[name].model_copy(update={"chance": 0.0})})
    mixture, changed = augment(targets, options, generator(), RATE)
    expected = targets[..., : math.floor(5000 / options.stretch)]  # repitch and speed need more
    assert torch.equal(changed, expected)
    assert torch.equal(mixture, expected.sum(1))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
def test_all_at_once(channels, scale):
    targets = scale * noise(3, 2, channels, 9000)
    options = options_of(**TOGETHER)
    mixture, changed = augment(targets, options, generator(), RATE)
    length = math.floor(9000 / options.stretch)
    assert mixture.shape == (3, channels, length)
    assert changed.shape == (3, 2, channels, length)
    assert torch.isfinite(mixture).all()
    assert torch.isfinite(changed).all()
    assert scale > 0 or not mixture.any()


def test_mixed_precision_leaves_the_effects_alone():
    targets = noise(2, 2, 2, 6000)
    expected = augment(targets, options_of(**TOGETHER), generator(), RATE)
    with torch.autocast("cpu", torch.bfloat16):
        found = augment(targets, options_of(**TOGETHER), generator(), RATE)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("wanted", [1000, 44100, 99991])
@pytest.mark.parametrize("name", ["repitch", "speed"])
def test_stretched_segments_come_out_as_long_as_wanted(wanted, name):
    options = options_of(**{name: ALWAYS[name]})
    targets = torch.zeros(1, 1, 1, math.ceil(wanted * options.stretch))
    assert augment(targets, options, generator(), RATE)[0].shape[-1] == wanted


def test_chances_are_kept():
    targets = torch.ones(500, 2, 1, 4)
    _, changed = augment(targets, options_of(drop=Drop(chance=0.1)), generator(), RATE)
    silent = (changed == 0).all(-1).float().mean()
    assert float(silent) == pytest.approx(0.1, abs=0.03)  # three standard deviations


def test_gains_fill_their_range():
    targets = torch.ones(1000, 1, 1, 1)
    _, db = augment(targets, options_of(gain=Gain(low=-10.0, high=10.0)), generator(), RATE)
    db = 20 * torch.log10(db)
    assert -10 <= float(db.min()) < -9.8
    assert 9.8 < float(db.max()) <= 10
    assert abs(float(db.mean())) < 0.6
    _, plain = augment(
        targets, options_of(gain=Gain(low=0.25, high=1.25, unit="factor")), generator(), RATE
    )
    assert 0.25 <= float(plain.min()) < 0.26
    assert float(plain.mean()) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    ("effect", "function", "argument", "low", "high"),
    [
        (Repitch, "repitch", 0, -2.0, 2.0),
        (Repitch, "repitch", 1, 0.88, 1.12),
        (Equalizer, "equalize", 0, 80.0, 12000.0),
        (Equalizer, "equalize", 1, -6.0, 6.0),
        (Equalizer, "equalize", 2, 0.5, 2.0),
        (Compressor, "compress", 0, -6.0, 6.0),
        (Compressor, "compress", 1, 1.5, 5.0),
        (Reverb, "room", 0, 0.2, 1.5),
        (Reverb, "reverberate", 1, 0.05, 0.4),
        (Distortion, "distort", 0, 0.0, 12.0),
        (Codec, "code", 0, 0.3, 1.5),
        (Codec, "code", 1, 11000 / (RATE / 2), 20000 / (RATE / 2)),
    ],
)
def test_strengths_fill_their_ranges(monkeypatch, effect, function, argument, low, high):
    drawn = []

    def record(audio, *given):
        drawn.append(torch.as_tensor(given[argument]).flatten())
        return audio

    monkeypatch.setattr(effects, function, record)
    effect(chance=1.0)(torch.zeros(200, 1, 1, 8), generator(), RATE)
    found = (torch.cat(drawn) - low) / (high - low)
    assert -1e-6 <= float(found.min()) < 0.03
    assert 0.97 < float(found.max()) <= 1.0 + 1e-6


def test_swap_and_polarity_hit_stems_on_their_own():
    targets = noise(20, 2, 2, 3)
    _, swapped = augment(targets, options_of(swap=Swap()), generator(), RATE)
    hit = (swapped == targets.flip(2)).flatten(2).all(-1)
    kept = (swapped == targets).flatten(2).all(-1)
    assert bool((hit ^ kept).all())
    assert int((hit[:, 0] != hit[:, 1]).sum()) > 0
    _, turned = augment(targets, options_of(polarity=Polarity()), generator(), RATE)
    assert torch.equal(turned.abs(), targets.abs())
    assert 0 < int((turned[:, 0, 0, 0] == targets[:, 0, 0, 0]).sum()) < 20


def test_remix_shuffles_each_stem_within_its_group():
    targets = torch.arange(12.0).view(6, 2, 1, 1)
    _, mixed = augment(targets, options_of(remix=Remix(group=4)), generator(1), RATE)
    for rows in (slice(0, 4), slice(4, 6)):
        for stem in range(2):
            assert sorted(mixed[rows, stem].flatten()) == sorted(targets[rows, stem].flatten())
    together = mixed[:, 1] - mixed[:, 0]
    assert bool((together != 1.0).any())  # stems of one song are no longer in one segment


def cookbook(audio, centre, gain_db, q):
    a, turn = 10 ** (gain_db / 40), 2 * np.pi * centre / RATE
    alpha = np.sin(turn) / (2 * q)
    b = [1 + alpha * a, -2 * np.cos(turn), 1 - alpha * a]
    return signal.lfilter(b, [1 + alpha / a, -2 * np.cos(turn), 1 - alpha / a], audio)


def test_the_equalizer_is_a_chain_of_the_cookbooks_filters():
    audio = noise(1, 2, 5000).double()
    bells = [(300.0, 6.0, 0.7), (5000.0, -9.0, 2.0)]
    centre, gain, q = (torch.tensor([column]).double() for column in zip(*bells, strict=True))
    found = effects.equalize(audio, centre, gain, q, RATE)
    expected = audio.numpy()
    for bell in bells:
        expected = cookbook(expected, *bell)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("frequency", "gain"), [(1000, 6.0), (30, 0.0), (18000, 0.0)])
def test_a_bell_lifts_its_centre_alone(frequency, gain):
    audio = sine(frequency)
    out = effects.equalize(audio, numbers([1000.0]), numbers([6.0]), numbers([2.0]), RATE)
    found = level_db(out[..., 5000:]) - level_db(audio[..., 5000:])
    assert found == pytest.approx(gain, abs=0.05)


@pytest.mark.parametrize(("threshold", "ratio"), [(-6.0, 2.0), (-12.0, 4.0), (3.0, 4.0)])
def test_a_steady_tone_is_compressed_by_the_ratio(threshold, ratio):
    audio = sine(2000.0, channels=2)
    out = effects.compress(audio, numbers(threshold), numbers(ratio))
    expected = -max(0.0, -threshold) * (1 - 1 / ratio)
    assert level_db(out) - level_db(audio) == pytest.approx(expected, abs=0.1)


def test_compression_reduces_dynamics():
    loud, soft = sine(1000.0), 0.05 * sine(1000.0)
    audio = torch.cat([loud, soft], dim=-1)
    out = effects.compress(audio, numbers(-20.0), numbers(4.0))
    middle = slice(10000, 30000)
    loud, soft = out[..., :RATE][..., middle], out[..., RATE:][..., middle]
    # 20 log10(1 / 0.05) = 26.0 dB; the loud half is 23 dB over the threshold, the soft below it
    assert level_db(loud) - level_db(soft) == pytest.approx(26.0 - 23.0 * 0.75, abs=0.1)


def test_a_room_decays_by_60_db_and_has_unit_energy():
    decay = 0.5
    response = effects.room(noise(4, 2, RATE), numbers(*[decay] * 4), RATE)
    torch.testing.assert_close(response.square().sum(2).mean(1), torch.ones(4))
    early, late = response[..., :2000], response[..., RATE // 4 : RATE // 4 + 2000]
    assert level_db(late) - level_db(early) == pytest.approx(-60 * 0.25 / decay, abs=0.5)


def test_an_impulse_is_answered_by_the_room():
    response = noise(1, 2, 300)
    audio = torch.zeros(1, 2, 1000)
    audio[..., 10] = 1.0
    out = effects.reverberate(audio, response, numbers(0.5))
    torch.testing.assert_close(out[..., 11:310], 0.5 * response[..., 1:], atol=1e-6, rtol=0)
    assert float(out[..., 320:].abs().max()) < 1e-6


def test_distortion_bends_peaks_and_spares_the_quiet():
    audio = torch.linspace(-1, 1, 1001).view(1, 1, -1)
    out = effects.distort(audio, numbers(12.0))
    bend = 10 ** (12 / 20) - 1
    assert float(out.max()) == pytest.approx(math.tanh(bend) / bend, rel=1e-5)
    assert bool((out.diff() > 0).all())
    assert float(out[..., 501] / audio[..., 501]) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("length", [1, 576, 5000])
def test_the_codecs_transform_is_orthonormal(length):
    audio = noise(2, 2, length).double()
    coefficients = effects.mdct(audio)
    torch.testing.assert_close(effects.inverse_mdct(coefficients, length), audio)
    torch.testing.assert_close(coefficients.square().sum(), audio.square().sum())


@pytest.mark.parametrize("coarseness", [0.25, 0.5, 1.0])
def test_the_codecs_noise_is_that_of_its_steps(coarseness):
    audio = noise(1, 1, RATE)
    out = effects.code(audio, numbers(coarseness), numbers(1.0))
    expected = 10 * math.log10(coarseness**2 / 12)  # of a uniform quantizer
    assert level_db(out - audio) - level_db(audio) == pytest.approx(expected, abs=0.2)


def test_the_codec_cuts_off_what_is_high():
    audio = noise(1, 1, RATE)
    out = effects.code(audio, numbers(0.0), numbers(12000 / (RATE / 2)))
    before, after = (torch.fft.rfft(x).abs().square()[0, 0] for x in (audio, out))  # 1 Hz a bin
    below, above = (10 * math.log10(after[b].sum() / before[b].sum()) for b in BANDS)
    assert below == pytest.approx(0.0, abs=0.01)
    assert above < -50  # the sine window's skirts


@pytest.mark.parametrize(
    ("semitones", "tempo"), [(2, 1.0), (-3, 1.0), (0, 1.12), (0, 0.9), (1, 0.95)]
)
def test_pitch_and_tempo_change_apart(semitones, tempo):
    audio = sine(440.0) + 0.5 * sine(1234.5)
    out = effects.repitch(audio, semitones, tempo)
    assert out.shape[-1] == pytest.approx(RATE / tempo, abs=2)
    assert frequency_of(out) == pytest.approx(440 * 2 ** (semitones / 12), abs=1.2)
    inside = slice(4000, -4000)
    assert level_db(out[..., inside]) == pytest.approx(level_db(audio[..., inside]), abs=0.1)


def test_repitching_keeps_the_stereo_image():
    left = sine(440.0) + sine(700.0)
    audio = torch.cat([left, -0.5 * left], dim=1)
    out = effects.repitch(audio, 2.0, 1.1)
    torch.testing.assert_close(out[:, 1], -0.5 * out[:, 0], atol=1e-4, rtol=0)


def test_resampling_does_not_alias():
    out = effects.resample(sine(18000.0), 1.3)  # would be at 23.4 kHz
    assert level_db(out[..., 2000:-2000]) < -50


def test_stems_of_a_segment_are_repitched_together():
    audio = sine(500.0, seconds=0.5)
    targets = torch.stack([audio, audio, audio], dim=1).repeat(4, 1, 1, 1)
    _, out = augment(targets, options_of(repitch=Repitch(chance=1.0)), generator(), RATE)
    torch.testing.assert_close(out[:, 0], out[:, 1], atol=1e-5, rtol=0)
    found = {round(frequency_of(segment)) for segment in out[:, 0]}
    assert len(found) > 1
    assert all(500 / 2 ** (2.2 / 12) < frequency < 500 * 2 ** (2.2 / 12) for frequency in found)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"gian": {}}, "Did you mean 'gain'"),
        ({"swap": {"chance": 2.0}}, "less than or equal to 1"),
        ({"gain": {"low": 3.0, "high": -3.0}}, "'low' must not exceed 'high'"),
        ({"reverb": {"decay": [1.0, 0.5]}}, "'decay' goes from low to high, got 1, 0.5"),
        ({"reverb": {"decay": [0.0, 0.5]}}, "greater than 0"),
        ({"remix": {"group": 1}}, "greater than or equal to 2"),
    ],
)
def test_mistakes_are_named(data, message):
    with pytest.raises(ConfigError, match=message):
        validate(AugmentationOptions, data, "recipe.yaml")


def test_speed_moves_pitch_and_keeps_stems_together():
    targets = sine(1000.0, channels=2)[None].repeat(8, 2, 1, 1)
    _, changed = augment(targets, options_of(speed=Varispeed(chance=1.0)), generator(), RATE)
    found = [[frequency_of(stem[None]) for stem in segment] for segment in changed]
    assert all(one == two for one, two in found)
    octaves = [math.log2(one / 1000.0) for one, _ in found]
    assert max(map(abs, octaves)) <= 0.252  # a bin of the transform wide
    assert max(octaves) - min(octaves) > 0.2


def test_pitch_is_changed_in_one_way():
    with pytest.raises(ConfigError, match="'repitch' and 'speed' both change pitch and tempo"):
        validate(AugmentationOptions, {"repitch": {}, "speed": {}}, "x")
