"""The bank of samples: what it holds, and what it plays."""

import math
import runpy
from pathlib import Path

import pytest
import torch
from training_songs import RATE, STEMS, folder_options, plan_of, stream, write_songs

from separator.errors import ConfigError
from separator.training.data.bank import Bank, Banked, BankedSamples, build_bank, draw
from separator.training.data.build import DataOptions, folder_library


def sine_bank(stems=("drums", "vocals"), channels=2, seconds=2.0, frequency=1000.0, rate=44100):
    """Return a bank of one clip for each stem, whose amplitudes are 0.1, 0.2, ..."""
    time = torch.arange(round(seconds * rate)) / rate
    wave = (32000 * torch.sin(2 * math.pi * frequency * time)).round().to(torch.int16)
    samples = wave.expand(len(stems), channels, -1).contiguous()
    scales = 0.1 * (1.0 + torch.arange(len(stems))) / 32000
    return Bank(samples, scales, dict.fromkeys(stems, 1), rate)


def plain(**changes):
    """Return options under which clips are played as they are."""
    usual = {"path": "", "clips": 1, "semitones": 0.0, "pan": 0.0, "width": 1.0, "equalizer": None}
    return Banked(**{**usual, **changes})


def played(bank, speed=1.0, onset=0.0, length=44100):
    numbers = (torch.tensor([x]) for x in (speed, onset))
    return bank.play(torch.tensor([0]), *numbers, length)[0]


def test_a_clip_is_played_as_it_is():
    bank = sine_bank()
    fade = 1 + round(0.005 * 44100)
    expected = bank.samples[0, :, :44100] * bank.scales[0]
    torch.testing.assert_close(played(bank)[:, fade:], expected[:, fade:])
    late = played(bank, onset=1000.0)
    assert not late[:, :1000].any()
    torch.testing.assert_close(late[:, 1000:], played(bank)[:, : 44100 - 1000])
    early = played(bank, onset=-500.0)
    torch.testing.assert_close(early, bank.samples[0, :, 500:44600] * bank.scales[0])


def test_a_clip_ends_softly():
    sound = played(sine_bank(seconds=0.5), length=44100)
    end = 22050
    assert not sound[:, end:].any()
    assert float(sound[:, end - 20 : end].abs().max()) < 0.1 * 20 / 220 + 1e-3


@pytest.mark.parametrize("semitones", [-5, 3])
def test_speed_is_pitch(semitones):
    speed = 2 ** (semitones / 12)
    sound = played(sine_bank(), speed=speed)[0, 1000:31000]
    spectrum = torch.fft.rfft(sound * torch.hann_window(30000))
    found = float(spectrum.abs().argmax()) * 44100 / 30000
    assert found == pytest.approx(1000 * speed, abs=44100 / 30000)


def test_interpolation_is_exact_far_into_a_clip():
    time = torch.arange(264600)
    ramp = (time / 264600 * 30000).to(torch.int16)  # a straight line, but for rounding
    bank = Bank(ramp[None, None], torch.tensor([1.0]), {"bass": 1}, 44100)
    sound = played(bank, speed=1.05, length=240000)[0, 1000:]
    expected = torch.arange(1000, 240000) * 1.05 / 264600 * 30000
    assert float((sound - expected).abs().max()) < 2.0


def test_drawing_is_a_function_of_the_generator():
    bank, plan = sine_bank(), plan_of(sample_rate=44100, samples=20000, channels=2)
    options = Banked(path="")
    one, two, other = (
        draw(bank, options, plan, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert one.shape == plan.shape
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.isfinite(one).all()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("bank_channels", [1, 2])
def test_stems_play_their_own_clips(channels, bank_channels):
    bank = sine_bank(channels=bank_channels)
    plan = plan_of(sample_rate=44100, samples=30000, channels=channels)
    out = draw(bank, plain(), plan, torch.Generator().manual_seed(0))
    level = out.square().mean((2, 3)).sqrt() * 2**0.5  # of sines: their amplitudes
    torch.testing.assert_close(level, torch.tensor([[0.1, 0.2]] * 3), atol=1e-3, rtol=0)


def test_pan_keeps_the_power():
    bank, plan = sine_bank(), plan_of(sample_rate=44100, samples=30000, channels=2)
    out = draw(bank, plain(pan=1.0), plan, torch.Generator().manual_seed(0))
    left, right = out.square().mean(-1).unbind(-1)
    assert float((left / right - 1).abs().max()) > 0.2
    torch.testing.assert_close(left + right, torch.tensor([[0.01, 0.04]] * 3), rtol=0.02, atol=0)


def test_short_clips_lie_within_the_segment():
    bank, plan = sine_bank(seconds=0.25), plan_of(sample_rate=44100, samples=44100, batch=8)
    out = draw(bank, plain(), plan, torch.Generator().manual_seed(0))
    energy = out.square().sum(-1)[:, 0, 0]  # all of each clip
    torch.testing.assert_close(energy, energy[:1].expand(8), rtol=0.01, atol=0)
    starts = {int(row.nonzero()[0]) for row in out[:, 0, 0]}
    assert len(starts) == 8


def test_a_bank_holds_what_sounds_and_no_more_than_allowed(tmp_path):
    options = folder_options(write_songs(tmp_path / "songs", seconds=20))
    library = folder_library(options, plan_of(stems=STEMS, channels=2))
    one_clip_each = 4 * 2 * 2 * 2 * RATE / 2**20
    bank = build_bank(library, STEMS, sample_rate=RATE, seconds=2.0, megabytes=3.5 * one_clip_each)
    assert dict(bank.counts) == dict.fromkeys(STEMS, 3)
    assert bank.samples.shape == (12, 2, 2 * RATE)
    assert bank.samples.nbytes <= 3.5 * one_clip_each * 2**20
    assert int(bank.samples.int().abs().amax((1, 2)).min()) >= 32767  # every clip fills its bits
    loudest = bank.samples.double().abs().amax((1, 2)) * bank.scales
    assert float(loudest.max()) == pytest.approx(3000 / 32768, rel=0.01)
    with pytest.raises(ConfigError, match="can't hold a clip"):
        build_bank(library, STEMS, sample_rate=RATE, seconds=2.0, megabytes=one_clip_each / 2)


def test_a_saved_bank_feeds_the_stream(tmp_path):
    path = tmp_path / "bank.safetensors"
    sine_bank(STEMS).save(path)
    loaded = Bank.load(path)
    assert torch.equal(loaded.samples, sine_bank(STEMS).samples)
    options = DataOptions.model_validate(
        {"bank": {"path": str(path)}, "segment": 0.5, "batch": 2, "steps_per_epoch": 2}
    )
    first, second = stream(options, sample_rate=44100)
    assert first.shape == (2, 4, 2, 22050)
    assert not torch.equal(first, second)
    again = stream(options, sample_rate=44100)
    again.load_state_dict({"position": 1})
    assert torch.equal(next(iter(again)), second)
    elsewhere = stream(options, sample_rate=44100, rank=1, world_size=2)
    assert not torch.equal(next(iter(elsewhere)), first)


def test_banks_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "bank.safetensors"
    options = Banked(path=str(path))
    plan, cpu = plan_of(sample_rate=44100), torch.device("cpu")
    with pytest.raises(ConfigError, match=r"is no bank of samples"):
        BankedSamples(options, plan, cpu)
    path.write_bytes(b"no safetensors")
    with pytest.raises(ConfigError, match=r"make one with scripts/make_bank.py"):
        BankedSamples(options, plan, cpu)
    sine_bank(rate=22050).save(path)
    with pytest.raises(ConfigError, match="made at 22050 Hz, the network needs 44100 Hz"):
        BankedSamples(options, plan, cpu)
    with pytest.raises(ConfigError, match=r"no stem 'drum'. Did you mean 'drums'"):
        BankedSamples(options, plan_of(stems=("drum",)), cpu)


def test_the_script_makes_a_bank(tmp_path, monkeypatch, capsys):
    folder, path = write_songs(tmp_path / "songs"), tmp_path / "new" / "bank.safetensors"
    script = Path(__file__).parent.parent / "scripts" / "make_bank.py"
    given = ["--sample-rate", str(RATE), "--seconds", "1", "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr("sys.argv", [str(script), str(folder), str(path), *given])
    runpy.run_path(str(script), run_name="__main__")
    assert dict(Bank.load(path).counts) == dict.fromkeys(STEMS, 3)
    assert "3 of vocals" in capsys.readouterr().out
