"""Recordings as instruments, voices that sing recorded syllables, and the mastering of stems."""

import numpy as np
import pytest
import soundfile

from separator.synthesis import SAMPLE_RATE, soundfont
from separator.synthesis.mastering import LOUDEST, Mastering, master
from separator.synthesis.psola import Syllable, periods_of
from separator.synthesis.sampler import Kit, OneShot, faded, faster, load, resequence
from separator.synthesis.score import KICK, SNARE, Note

SECOND = SAMPLE_RATE


def tone(hertz, seconds=1.0, harmonics=8):
    """Return a mono wave rich in harmonics."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    partials = [np.sin(2 * np.pi * hertz * n * time) / n for n in range(1, harmonics + 1)]
    return (0.3 * np.sum(partials, axis=0)).astype(np.float32)


def pitch(sound):
    """Return the median pitch in Hz of what is voiced."""
    periods = periods_of(sound)
    return SAMPLE_RATE / np.median(periods[periods > 0])


@pytest.fixture(scope="module")
def stems():
    rng = np.random.default_rng(0)
    swell = 0.2 + np.abs(np.sin(np.linspace(0, 9, 2 * SECOND)))
    quiet = {name: rng.normal(0, 0.05, (2, 2 * SECOND)) * swell for name in ("drums", "bass")}
    return {name: audio.astype(np.float32) for name, audio in quiet.items()} | {
        "vocals": np.stack([tone(220, 2.0)] * 2)
    }


@pytest.mark.parametrize("seed", range(4))
def test_mastered_stems_sum_to_the_mastered_mixture(stems, seed):
    settings = Mastering.draw(np.random.default_rng(seed))
    together = master({"mixture": sum(stems.values())}, settings)["mixture"]
    parts = master(stems, settings)
    mixture = sum(parts.values())
    # one gain may be needed that no stem exceeds the range
    gain = np.sum(mixture * together) / np.sum(together**2)
    np.testing.assert_allclose(mixture, gain * together, atol=2e-4)
    assert max(np.abs(audio).max() for audio in (*parts.values(), mixture)) <= LOUDEST + 1e-6


def test_a_master_driven_hard_is_loud_and_under_its_ceiling(stems):
    loud = sum(master(stems, Mastering(level_db=-8.0, ceiling=0.9)).values())
    quiet = sum(master(stems, Mastering(level_db=-20.0, ceiling=0.9)).values())
    assert np.abs(loud).max() <= 0.9 + 1e-4
    crest = [np.abs(audio).max() / audio.std() for audio in (loud, quiet)]
    assert crest[0] < 0.9 * crest[1]  # the limiter flattened it
    assert loud.std() > 2 * quiet.std()


def test_silent_stems_stay_silent(stems):
    silent = {**stems, "other": np.zeros((2, 2 * SECOND), dtype=np.float32)}
    assert not master(silent, Mastering())["other"].any()
    assert not any(a.any() for a in master({"a": silent["other"]}, Mastering()).values())


def test_a_recording_is_read_at_44100_hz_without_its_silence(tmp_path):
    gap = np.zeros(4800, dtype=np.float32)
    sound = np.concatenate([gap, 0.4 * np.ones(48000) * np.sin(np.arange(48000) / 10), gap])
    soundfile.write(tmp_path / "a.wav", sound, 48000)
    audio = load(tmp_path / "a.wav")
    assert abs(audio.shape[1] - SECOND) < 1000 and audio.shape[0] == 2
    assert np.abs(audio).max() == pytest.approx(1.0)


def test_a_silent_recording_is_a_single_sample(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(1000), SAMPLE_RATE)
    assert load(tmp_path / "a.wav").shape == (2, 1)


@pytest.mark.parametrize("semitones", [-12, -5, 0, 7, 12])
def test_a_one_shot_plays_the_pitch_that_is_written(semitones):
    shot = OneShot(np.stack([tone(220.0, 2.0)] * 2), 57.0)
    audio = shot.play((Note(0.1, 0.5, 57.0 + semitones, 0.8),), SECOND)
    assert pitch(audio[0]) == pytest.approx(220.0 * 2 ** (semitones / 12), rel=0.01)
    assert not audio[:, : int(0.1 * SECOND)].any()
    assert not audio[:, int(0.65 * SECOND) :].any()  # held as long as written


def test_a_faster_recording_is_shorter_and_higher():
    audio = np.stack([tone(200.0)] * 2)
    higher = faster(audio, 1.5)
    assert higher.shape[1] == pytest.approx(SECOND / 1.5, abs=2)
    assert pitch(higher[0]) == pytest.approx(300.0, rel=0.01)


def test_cuts_end_in_silence():
    assert faded(np.ones((2, 1000), dtype=np.float32), 600)[:, -1].max() == 0.0
    assert faded(np.ones((2, 10), dtype=np.float32)).shape == (2, 10)


def test_a_kit_strikes_what_it_has_at_its_time_and_place():
    hit = np.ones((2, 100), dtype=np.float32)
    kit = Kit({KICK: [hit]}, {KICK: 1.0}, {KICK: 0.5})
    rng = np.random.default_rng(0)
    notes = (Note(0.5, 0.1, KICK, 1.0), Note(0.2, 0.1, SNARE, 1.0))
    out = kit.play(notes, SECOND, rng)
    sounding = np.flatnonzero(np.abs(out).max(axis=0))
    assert sounding[0] == SECOND // 2 and len(sounding) == 100
    assert np.abs(out[0]).max() < 1e-6 < out[1].max()


def test_a_loop_keeps_to_the_new_tempo_and_rests_where_it_should():
    loop = np.zeros((2, 2 * SECOND), dtype=np.float32)  # a bar at 120: eighths of 1/4 s
    loop[:, :: SECOND // 4] = 1.0
    out = resequence(loop, 100.0, [True, False, True], 8 * SECOND, np.random.default_rng(0))
    step = 30.0 / 100.0 * SECOND
    onsets = np.flatnonzero(np.abs(out[0]) > 0.3)
    assert all(min(onset % step, step - onset % step) < 50 for onset in onsets)
    assert {int((onset + 50) / step) for onset in onsets} == {*range(8), *range(16, 24)}


@pytest.mark.parametrize("hertz", [110.0, 196.0, 330.0, 440.0])
def test_a_syllable_sings_any_pitch_for_any_time(hertz):
    rng = np.random.default_rng(0)
    hiss = 0.05 * rng.normal(size=SECOND // 10).astype(np.float32)
    syllable = Syllable.analyze(np.concatenate([hiss, tone(180.0, 0.4), hiss]))
    for seconds in (0.15, 1.0):
        sung = syllable.sing(np.full(int(seconds * SECOND), hertz, dtype=np.float32))
        assert len(sung) == int(seconds * SECOND)
        assert pitch(sung) == pytest.approx(hertz, rel=0.02)
    assert np.abs(sung).max() < 2.0


def test_a_syllable_needs_a_voice():
    rng = np.random.default_rng(0)
    assert Syllable.analyze(rng.normal(size=SECOND).astype(np.float32)) is None
    assert Syllable.analyze(np.zeros(SECOND, dtype=np.float32)) is None


def test_marks_run_forward_whatever_the_pitch_does():
    time = np.arange(SECOND) / SAMPLE_RATE
    wild = 150 + 120 * np.sign(np.sin(2 * np.pi * 7 * time))  # octaves up and down
    voice = np.sign(np.sin(2 * np.pi * np.cumsum(wild) / SAMPLE_RATE)).astype(np.float32)
    syllable = Syllable.analyze(voice)
    assert np.all(np.diff(syllable.marks) > 0) and syllable.marks[-1] < len(syllable.audio)
    assert np.isfinite(syllable.sing(np.full(SECOND, 200.0, dtype=np.float32))).all()


def test_composed_songs_leave_the_fonts_alone_that_judge(tmp_path, monkeypatch):
    for name in (
        "FluidR3_GM.sf2",
        "TimGM6mb.sf2",
        "MuseScore_General.sf3",
        "Black_Pearl_4_LV2.sf2",
    ):
        (tmp_path / name).touch()
    monkeypatch.setattr(soundfont, "FONT_FOLDERS", (tmp_path,))
    monkeypatch.setattr(soundfont.shutil, "which", lambda program: program)
    found = {timbres: soundfont.installed_fonts(timbres) for timbres in ("train", "heldout", "any")}
    assert {timbres: [path.stem for path in paths] for timbres, paths in found.items()} == {
        "train": ["FluidR3_GM"],
        "heldout": ["TimGM6mb"],
        "any": ["FluidR3_GM", "TimGM6mb"],
    }
