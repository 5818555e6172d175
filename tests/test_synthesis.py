import time
from io import BytesIO

import mido
import numpy as np
import pytest
import soundfile

from separator.resources import data_folder
from separator.synthesis import SAMPLE_RATE, STEMS, Palette, desk, render_song
from separator.synthesis.composer import compose
from separator.synthesis.drums import VARIATIONS, DrumKit
from separator.synthesis.instruments import HELD_OUT, INSTRUMENTS, draw_instrument
from separator.synthesis.oscillators import Envelope, frames_of, read_table
from separator.synthesis.score import HAT, KICK, SNARE, Note, frequency
from separator.synthesis.soundfont import Channel, midi_file
from separator.synthesis.speech import installed_voices
from separator.synthesis.styles import GROOVES, STYLES
from separator.synthesis.tones import Modulated, Wavetable
from separator.synthesis.voice import VOWELS, Singer, phrases, pitch_curve, sing, sung_vowels

FAMILY_LIST = sorted(
    {(name, family) for group in INSTRUMENTS.values() for name, family in group.items()}, key=str
)


def pitch_of(sound, lowest=30.0):
    """Return the fundamental in Hz: the first strong peak of the autocorrelation."""
    centred = sound - sound.mean()
    power = np.abs(np.fft.rfft(centred, 2 * len(centred))) ** 2
    correlation = np.fft.irfft(power)[: int(SAMPLE_RATE / lowest)]
    correlation /= correlation[0]
    start = int(np.argmax(correlation < 0.3))
    peaks = correlation[start:]
    strong = np.flatnonzero(peaks > 0.9 * peaks.max())
    end = strong[0] + int(np.argmax(np.diff(peaks[strong[0] :]) < 0))
    return SAMPLE_RATE / (start + end)


def cents(a, b):
    return abs(1200 * np.log2(a / b))


@pytest.fixture(scope="module")
def song():
    return render_song(5, 6.0)


def test_a_seed_is_a_song(song):
    again = render_song(5, 6.0)
    assert all(np.array_equal(song[stem], again[stem]) for stem in STEMS)


def test_seeds_differ(song):
    other = render_song(6, 6.0)
    assert not any(np.allclose(song[stem], other[stem], atol=1e-3) for stem in STEMS)


@pytest.mark.parametrize("duration", [1.0, 2.345])
def test_stems_have_the_length_asked_for(duration):
    stems = render_song(1, duration)
    assert tuple(stems) == STEMS
    for audio in stems.values():
        assert audio.shape == (2, int(duration * SAMPLE_RATE))
        assert audio.dtype == np.float32


@pytest.mark.parametrize("seed", range(4))
def test_nothing_clips_and_something_sounds(seed):
    stems = render_song(seed, 5.0)
    mixture = np.sum(list(stems.values()), axis=0)
    assert np.isfinite(mixture).all()
    assert np.abs(mixture).max() <= 0.981
    assert max(np.abs(audio).max() for audio in stems.values()) <= 0.981
    assert -40 < desk.loudness(mixture) < -3


def test_rendering_is_faster_than_playing():
    start = time.process_time()
    render_song(7, 10.0)
    assert time.process_time() - start < 10.0


def test_bus_gain_is_common_to_all_stems():
    """The bus is one curve, so the ratio between stems must not change."""
    rng = np.random.default_rng(0)
    stems = rng.normal(0, 0.3, (2, 2, 44100)).astype(np.float32)
    gain = desk.bus_gain(stems.sum(0), -20.0, 3.0, 0.9)
    assert gain.shape == (44100,)
    assert np.abs((stems * gain).sum(0)).max() <= 0.9 + 1e-4
    assert gain.min() > 0


@pytest.mark.parametrize("style", sorted(STYLES))
def test_composer_keeps_to_its_style(style):
    written = compose(11, 20.0, style)
    low, high = STYLES[style].tempo
    assert written.style == style
    assert low <= written.tempo <= high
    for part in written.parts:
        assert part.stem in STEMS
        assert all(0 <= note.start < 20.0 and note.duration > 0 for note in part.notes)
        assert all(0 < note.velocity <= 1 for note in part.notes)


def test_bass_is_below_the_melody():
    written = compose(2, 30.0)
    pitches = {part.role: np.mean([n.pitch for n in part.notes]) for part in written.parts}
    assert pitches["bass"] < 48 < pitches["melody"]


def test_hip_hop_is_rapped_fast_and_off_the_scale():
    written = [compose(seed, 30.0, "hip hop") for seed in range(30)]
    parts = [part for song in written for part in song.parts if part.stem == "vocals"]
    lines = {role: [p.notes for p in parts if p.role == role] for role in ("rap", "melody")}
    assert 10 < len(lines["rap"]) < 26 and len(lines["rap"]) + len(lines["melody"]) == 30
    gap = {role: np.median(np.diff([n.start for n in notes[0]])) for role, notes in lines.items()}
    assert gap["rap"] < 0.7 * gap["melody"]
    tones = np.array([note.pitch for notes in lines["rap"] for note in notes])
    assert np.mean(tones == tones.round()) < 0.01
    assert all(part.role != "rap" for seed in range(20) for part in compose(seed, 9.0, "pop").parts)


def test_a_rapper_holds_no_note():
    singer = Singer.draw(np.random.default_rng(4)).speaking()
    notes = tuple(Note(0.2 * i, 0.2, 60.0 - i, 0.8) for i in range(10))
    hertz = pitch_curve(singer, notes, 2 * SAMPLE_RATE, np.random.default_rng(0))
    still = np.abs(np.diff(hertz[::1000])) < 1e-3 * hertz[:-1000:1000]
    assert np.mean(still) < 0.3
    assert hertz[-1000:].mean() < 0.7 * hertz[:1000].mean()


def test_players_rest():
    """Over many songs every stem has sections in which it is silent, and songs have all four."""
    written = [compose(seed, 40.0) for seed in range(20)]
    assert all({part.stem for part in song.parts} == set(STEMS) for song in written)
    late = [min(n.start for n in p.notes) > 4.0 for song in written for p in song.parts]
    assert 0 < np.mean(late) < 0.8


def test_grooves_are_one_bar_of_sixteenths():
    assert all(len(hits) == 16 for groove in GROOVES.values() for hits in groove.values())


@pytest.mark.parametrize(("name", "family"), FAMILY_LIST, ids=[name for name, _ in FAMILY_LIST])
def test_instruments_sound_at_the_pitch_asked_for(name, family):
    hertz = 110.0 if name in INSTRUMENTS["bass"] else 440.0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sound = family(rng).render(hertz, 0.6, 0.8, rng)
        assert sound.shape[0] == 2
        assert np.isfinite(sound).all()
        spectrum = np.abs(np.fft.rfft(sound.sum(0) * np.hanning(sound.shape[1])))
        frequencies = np.fft.rfftfreq(sound.shape[1], 1 / SAMPLE_RATE)
        fundamental = spectrum[np.abs(frequencies - hertz) < 0.04 * hertz].max()
        between = spectrum[np.abs(frequencies - 1.25 * hertz) < 0.04 * hertz].max()
        assert fundamental > 3 * between


@pytest.mark.parametrize("pitch", [40, 57, 69.5])
def test_wavetable_pitch_in_closed_form(pitch):
    rng = np.random.default_rng(0)
    sound = Wavetable(Envelope(0.01, 1, 1, 0.1)).render(frequency(pitch), 0.8, 1.0, rng)
    assert cents(pitch_of(sound.sum(0)), frequency(pitch)) < 20


def test_wavetable_does_not_alias():
    """Harmonics of a 3 kHz saw end at 18 kHz: nothing may lie between them."""
    rng = np.random.default_rng(0)
    tone = Wavetable(Envelope(0.05, 1, 1, 0.1), bright=500, dull=500)
    sound = tone.render(3000.0, 1.0, 1.0, rng)[0, 4410:39690]
    spectrum = np.abs(np.fft.rfft(sound * np.blackman(len(sound))))
    frequencies = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    beside = np.abs((frequencies + 1500) % 3000 - 1500) > 100
    assert spectrum[beside].max() < 0.01 * spectrum.max()


def test_one_harmonic_makes_a_sine():
    table = frames_of(np.array([[1.0]]), np.zeros(1))
    phase = np.linspace(0, 3, 1000, endpoint=False)
    assert np.allclose(read_table(table, phase), np.cos(2 * np.pi * phase), atol=5e-3)


def test_frequency_modulation_without_index_is_a_sine():
    tone = Modulated(Envelope(0.0001, 1.0, 1.0, 0.01), 2.0, 0.0, 1.0, 0.0, 0.0)
    sound = tone.render(441.0, 0.5, 1.0, np.random.default_rng(0))[0]
    expected = np.sin(2 * np.pi * 441.0 * np.arange(20000) / SAMPLE_RATE)
    assert np.allclose(sound[100:20000], expected[100:], atol=1e-3)


def test_families_are_kept_apart():
    for role, group in INSTRUMENTS.items():
        assert 0 < len(set(group) & HELD_OUT) < len(group), role
    rng = np.random.default_rng(0)
    assert isinstance(draw_instrument("bass", rng, "heldout"), Modulated)
    assert all(isinstance(draw_instrument("bass", rng, "train"), Wavetable) for _ in range(20))


def test_voices_are_kept_apart():
    assert not set(installed_voices("train")) & set(installed_voices("heldout"))


@pytest.mark.parametrize("seed", range(3))
def test_drums_strike_and_fade(seed):
    kit = DrumKit(np.random.default_rng(seed))
    for drum in (KICK, SNARE, HAT):
        strikes = kit.strikes(drum)
        assert len(strikes) == VARIATIONS
        power = (strikes[0] ** 2).sum(0)
        quarter = len(power) // 4
        assert power[:quarter].sum() > 0.6 * power.sum()
        assert np.abs(strikes[0][:, -1]).max() < 1e-3


def centroid(sound):
    spectrum = np.abs(np.fft.rfft(sound.sum(0))) ** 2
    return float(
        (spectrum * np.fft.rfftfreq(sound.shape[1], 1 / SAMPLE_RATE)).sum() / spectrum.sum()
    )


@pytest.mark.parametrize("seed", range(3))
def test_drums_have_their_registers(seed):
    kit = DrumKit(np.random.default_rng(seed))
    kick, snare, hat = (centroid(kit.strikes(drum)[0]) for drum in (KICK, SNARE, HAT))
    assert kick < 400 < snare < hat
    assert hat > 4000


@pytest.mark.parametrize("pitch", [55, 62])
def test_singer_sings_the_note(pitch):
    rng = np.random.default_rng(3)
    singer = Singer(1.1, 1.2, 0.0, 5.0, 0.03, 0.0, 0.01, 1.0, (3300.0, 4500.0), 0)
    notes = (Note(0.0, 1.0, pitch, 0.9),)
    tract = sung_vowels(singer, notes, SAMPLE_RATE, rng)
    sound = sing(singer, notes, tract, SAMPLE_RATE, rng)
    assert cents(pitch_of(sound[15000:35000], 60.0), frequency(pitch)) < 30


def test_vowels_differ_and_rests_are_silent():
    rng = np.random.default_rng(1)
    singer = Singer.draw(rng)
    notes = (Note(0.0, 0.4, 60, 0.9), Note(1.5, 0.4, 62, 0.9))
    sound = sing(singer, notes, sung_vowels(singer, notes, 88200, rng), 88200, rng)
    assert np.abs(sound[35000:60000]).max() < 1e-3 * np.abs(sound).max()
    assert len(VOWELS) >= 5


def test_phrases_end_at_rests():
    notes = tuple(Note(start, 0.4, 60, 0.5) for start in (0.0, 0.5, 2.0, 2.5, 4.0))
    assert [len(phrase) for phrase in phrases(notes)] == [2, 2, 1]


def test_midi_file_holds_the_notes():
    data = midi_file([Channel((Note(0.5, 0.25, 60, 0.5),), 4), Channel((), 8, drums=True)])
    file = mido.MidiFile(file=BytesIO(data))
    (track,) = file.tracks
    assert mido.tick2second(1, file.ticks_per_beat, track[0].tempo) == 1 / 480
    assert {(m.channel, m.program) for m in track if m.type == "program_change"} == {(0, 4), (9, 8)}
    on, off = (m for m in track if m.type.startswith("note"))
    assert (on.type, on.time, on.note, on.velocity) == ("note_on", 240, 60, 60)
    assert (off.type, off.time, off.note) == ("note_off", 120, 60)


def test_reverberation_keeps_the_direct_sound():
    impulse = np.zeros((2, 44100), dtype=np.float32)
    impulse[:, 100] = 1.0
    response = desk.room_response(np.random.default_rng(0), 0.5)
    wet = desk.reverberated(impulse, response, 0.3)
    assert np.allclose(wet[:, :100], 0, atol=1e-5)
    assert np.sum((wet - impulse) ** 2) == pytest.approx(2 * 0.3**2, rel=0.01)


def test_placing_in_the_middle_changes_nothing():
    audio = np.random.default_rng(0).normal(0, 0.1, (2, 1000)).astype(np.float32)
    assert np.allclose(desk.place(audio, 0.0, 1.0), audio, atol=1e-6)
    assert np.allclose(desk.place(audio, -1.0, 0.0)[1], 0, atol=1e-6)


def test_loudness_of_a_sine():
    time_axis = np.arange(44100) / SAMPLE_RATE
    sine = np.sin(2 * np.pi * 1000 * time_axis).astype(np.float32)
    assert desk.loudness(np.stack([sine, sine])) == pytest.approx(-3.01, abs=0.1)
    assert desk.loudness(np.zeros((2, 44100), dtype=np.float32)) == -100.0


def test_default_palette_needs_no_programs(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert Palette.installed() == Palette("any", (), ())
    assert render_song(4, 1.0)["drums"].shape == (2, 44100)


def test_demo_song_is_the_sum_of_its_stems():
    folder = data_folder("models") / "demo"
    mixture, rate = soundfile.read(folder / "mixture.flac", dtype="float32")
    stems = [soundfile.read(folder / f"{stem}.ogg", dtype="float32")[0] for stem in STEMS]
    assert rate == SAMPLE_RATE
    assert all(stem.shape == mixture.shape for stem in stems)
    assert np.abs(np.sum(stems, axis=0) - mixture).max() < 1 / 32768
