"""The scripts that make songs of recordings to train on, and songs of another make to judge by."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from separator.synthesis import SAMPLE_RATE
from separator.synthesis.score import Note

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import baseline  # noqa: E402
import debian_sounds as sounds  # noqa: E402
import make_judge_songs as judge  # noqa: E402
import make_recorded_musdb as recorded  # noqa: E402

SECOND = SAMPLE_RATE
STEMS = {"drums", "bass", "other", "vocals"}


def beeps(channels, length):
    """Play notes as sine waves: what stands for a soundfont."""
    out = np.zeros((2, length), dtype=np.float32)
    for note in (note for channel in channels for note in channel.notes):
        start = int(note.start * SECOND)
        time = np.arange(min(int(note.duration * SECOND), max(length - start, 0))) / SECOND
        out[:, start : start + len(time)] += np.sin(2 * np.pi * 5 * note.pitch * time)
    return out


def recording(path, hertz, seconds=0.3):
    """Write a voiced sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * SECOND)) / SECOND
    sound = 0.3 * np.sign(np.sin(2 * np.pi * hertz * time))
    sound = np.stack([sound, sound], axis=1)
    with soundfile.SoundFile(path, "w", SECOND, 2) as file:
        for start in range(0, len(sound), SECOND):  # a long Vorbis file at once is too much
            file.write(sound[start : start + SECOND])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Lay out packages with a beep in the place of each recording."""
    root = tmp_path_factory.mktemp("packages")
    names = [p.replace("*", "1") for group in recorded.ONE_SHOTS.values() for p in group]
    names += [*recorded.BASSES, *recorded.TONES, "ambi_choir"]
    names += [f"loop_{loop}" for loop in recorded.LOOPS]
    for i, name in enumerate(names):
        seconds = 2.0 if name.startswith("loop") else 0.2
        recording(root / f"sonic-pi-samples/{name}.flac", 100 + 5 * i, seconds)
    for i in range(10):
        recording(root / f"klettres-data/en/syllab/{i}.ogg", 150 + 5 * i)
        recording(root / f"ktuberling-data/en/{i}.wav", 150 + 5 * i)
    recording(root / "fillets-ng-data-cs/cs/a.ogg", 150, 1.0)
    band = recording(root / "band.ogg", 300, 50.0)
    for song in (*sounds.TRAINING_SONGS, *sounds.JUDGE_SONGS):
        place = root / sounds.REAL_BAND / "sectoid" / song
        place.mkdir(parents=True)
        for part in ("guitar", "song"):
            shutil.copy(band, place / f"{part}.ogg")
    fonts = {
        "fluid-soundfont-gm": "A.sf2",
        "timgm6mb-soundfont": "TimGM6mb.sf2",
        "avldrums.lv2-soundfont": "A_4_LV2.sf2",
    }
    for name in {*sounds.TRAINING, *sounds.JUDGE}:
        (root / name).mkdir(exist_ok=True)
    for name, font in fonts.items():
        (root / name / font).touch()
    for kit in judge.KITS:
        place = root / "hydrogen-drumkits/drumkits" / kit
        recording(place / "kick.flac", 60)
        xml = "<name>{0}</name><layer><filename>kick.flac</filename></layer>"
        both = "".join(f"<instrument>{xml.format(n)}</instrument>" for n in ("Kick 1", "Snare"))
        (place / "drumkit.xml").write_text(f"<drumkit_info>{both}</drumkit_info>")
    return root


@pytest.fixture
def shelf(folder, monkeypatch):
    """Give shelves of these packages, and fonts that beep."""
    for module in (recorded, judge):
        monkeypatch.setattr(module, "play_soundfont", lambda font, c, length: beeps(c, length))
    monkeypatch.setattr(recorded, "play_patches", lambda config, c, length: beeps(c, length))
    monkeypatch.setattr(recorded, "installed_voices", lambda timbres: ())
    return lambda names: sounds.Shelf(folder, names)


def test_training_and_judge_share_no_sound():
    assert set(sounds.TRAINING) & set(sounds.JUDGE) == {sounds.REAL_BAND}
    assert not set(sounds.TRAINING_SONGS) & set(sounds.JUDGE_SONGS)
    assert not set(sounds.TRAINING) & set(sounds.KEPT_BACK)


def test_a_shelf_gives_only_what_is_on_its_list(tmp_path):
    (tmp_path / "timgm6mb-soundfont").mkdir()
    training = sounds.Shelf(tmp_path, sounds.TRAINING)
    with pytest.raises(ValueError, match="timgm6mb-soundfont is not among the packages"):
        training.package("timgm6mb-soundfont")
    assert sounds.Shelf(tmp_path, sounds.JUDGE).files("timgm6mb-soundfont", "*") == []


@pytest.mark.parametrize("seed", [2_000_000, 2_000_004])
def test_a_seed_is_a_recorded_song_whose_stems_keep_to_the_range(shelf, seed):
    found = recorded.Sounds.collect(shelf(sounds.TRAINING))
    song = recorded.render(seed, 5.0, found)
    again = recorded.render(seed, 5.0, found)
    assert set(song) == STEMS
    assert all(np.array_equal(song[stem], again[stem]) for stem in STEMS)
    assert all(audio.shape == (2, 5 * SECOND) for audio in song.values())
    assert sum(audio.any() for audio in song.values()) >= 3
    mixture = sum(song.values())
    assert 0.1 < np.abs(mixture).max() <= 0.981
    other = recorded.render(seed + 1, 5.0, found)
    assert not np.allclose(sum(other.values()), mixture, atol=1e-3)


def test_training_hears_only_its_own_songs_of_the_real_band(shelf):
    guitars = recorded.Sounds.collect(shelf(sounds.TRAINING)).guitars
    assert {path.parent.name for path in guitars} == set(sounds.TRAINING_SONGS)


@pytest.mark.parametrize("seed", [0, 2])  # 1 needs the program flite
def test_a_seed_is_a_judging_song(shelf, seed):
    stage = judge.Stage(shelf(sounds.JUDGE))
    song = judge.judge_song(seed, 6.0, stage)
    again = judge.judge_song(seed, 6.0, stage)
    assert set(song) == STEMS
    assert all(np.array_equal(song[stem], again[stem]) for stem in STEMS)
    assert all(audio.any() and np.isfinite(audio).all() for audio in song.values())
    assert 0.5 < np.abs(sum(song.values())).max() <= 0.981


def test_a_real_band_is_heard_with_a_voice(shelf):
    song = judge.real_song(2, 3.0, judge.Stage(shelf(sounds.JUDGE)))
    assert set(song) == {"instrumental", "vocals"}
    assert song["instrumental"].any() and song["vocals"].any()


@pytest.mark.parametrize("hertz", [41.2, 110.0, 329.6, 880.0])
def test_a_plucked_string_is_in_tune_and_dies_away(hertz):
    rng = np.random.default_rng(0)
    string = judge.PluckedString(pluck=0.2, soft=6000.0, damping=0.05, ring=1.0)
    sound = string.sound(hertz, 1.0, rng)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(SECOND), 8 * SECOND))
    near = slice(int(8 * 0.9 * hertz), int(8 * 1.1 * hertz))
    peak = (near.start + int(np.argmax(spectrum[near]))) / 8
    assert abs(1200 * np.log2(peak / hertz)) < 8  # cents
    thirds = [sound[i * SECOND // 3 : (i + 1) * SECOND // 3].std() for i in range(3)]
    assert thirds[0] > 2 * thirds[1] > 4 * thirds[2] > 0


@pytest.mark.parametrize("octave", [0, 12])
def test_the_formant_singer_sings_in_tune(octave):
    singer = judge.FormantSinger(1.0, 0.4, 0.15, 0.0, 5.5, 0.01, octave)
    notes = [Note(0.0, 1.5, 52.0, 0.8)]
    sound = singer.sing(notes, 2 * SECOND, np.random.default_rng(0))[SECOND // 2 : SECOND]
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 4 * SECOND)) ** 2
    wanted = 440.0 * 2 ** ((52 + octave - 69) / 12)
    comb = {}
    for ratio in (0.75, 1.0, 1.25):
        lines = (4 * wanted * ratio * np.arange(1, 12)).astype(int)
        comb[ratio] = sum(power[line - 20 : line + 21].sum() for line in lines)
    assert comb[1.0] > 5 * max(comb[0.75], comb[1.25])


def test_the_judges_tempo_drifts_and_its_players_are_uneven():
    rng = np.random.default_rng(0)
    plan = judge.Plan.draw(rng, 20.0)
    steps = np.diff(plan.times)
    assert (steps > 0).all() and 0.002 < steps.std() / steps.mean() < 0.2
    notes = judge.drum_notes(plan, rng)
    kicks = np.array([note.start for note in notes if note.pitch == 36])
    off = np.abs(kicks[:, None] - plan.times).min(axis=1)
    assert 0.0005 < np.median(off) < 0.03


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"vocals": 1.0, "drums": 2.0, "bass": 3.0, "other": 4.0}, 9.0),
        ({"vocals": 1.0, "accompaniment": 5.0}, 5.0),
        ({"vocals": 1.0, "instrumental": 6.0}, 6.0),
        ({"vocals": 1.0}, 9.0),  # of a mixture of 10
        ({"drums": 1.0}, None),
    ],
)
def test_the_accompaniment_comes_from_what_a_model_gives(given, expected):
    stems = {name: np.full((2, 4), value) for name, value in given.items()}
    found = baseline.with_accompaniment(stems, np.full((2, 4), 10.0))
    assert (None if expected is None else expected) == (
        found["instrumental"][0, 0] if "instrumental" in found else None
    )


def test_models_are_measured_on_four_stems_and_on_two(tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    for folder, names in (("four/test", sorted(STEMS)), ("two", ["instrumental", "vocals"])):
        stems = {name: rng.normal(0, 0.1, (2, SECOND // 2)).astype(np.float32) for name in names}
        for song in ("a", "b"):
            recorded.write_stems(tmp_path / folder / song, stems)

    def half(mixture, targets, sample_rate):
        return {"vocals": 0.5 * targets["vocals"]}

    monkeypatch.setattr(baseline, "model", lambda name: half)
    monkeypatch.setattr(baseline, "classical", half)  # its libraries are compiled for a minute
    options = ["--data", str(tmp_path / "four"), "--data", str(tmp_path / "two")]
    monkeypatch.setattr(sys, "argv", ["baseline.py", *options, "--model", "half"])
    baseline.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    found = [row for row in rows if row[1] == "half"]
    assert [row[2:7] for row in found] == [["-", "-", "-", "6.02", "-"]] * 2
    # half of the vocals stays in the accompaniment: 10 log10(3 / 0.25) and 10 log10(1 / 0.25)
    assert [float(row[7]) for row in found] == pytest.approx([10.79, 6.02], abs=0.2)
    assert {row[1] for row in rows if "two" in row[0]} == {"mixture", "half", "ideal ratio mask"}
