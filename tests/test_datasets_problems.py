"""Data sets with something wrong: what is found, said, remembered and refused."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from songsets import FOUR, noise, write, write_moises, write_song, write_stem_file

from separator.datasets import (
    KINDS,
    PROBLEM_COLUMNS,
    DatasetError,
    index,
    leak_check,
    open_dataset,
    scan_dataset,
    trained_on,
)
from separator.errors import AudioError, ConfigError

pytest_plugins = ["songsets"]
pytestmark = pytest.mark.usefixtures("cache_folder")


def test_all_kinds_say_so_when_they_find_nothing(root):
    for kind, layout in KINDS.items():
        with pytest.raises(DatasetError, match="no songs as") as caught:
            open_dataset(root, kind)
        assert layout.example in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "musdb"}, r"Unknown kind of data set 'musdb'; allowed: auto, .*'musdb18'\?"),
        ({"split": "valid"}, r"Unknown split 'valid'; allowed: train, .*'validation'\?"),
        ({"split": "validation"}, "no songs for validation; it has 1 for test. Choose another"),
    ],
)
def test_wrong_options_name_what_is_allowed(root, options, message):
    write_song(root / "test" / "song")
    with pytest.raises(ConfigError, match=message):
        open_dataset(root, **options)


@pytest.mark.parametrize(
    ("stems", "message"),
    [
        (("drums", "other", "vocals"), r"would be musdb18hq .* but none has 'bass'\. Mend that"),
        (("drums", "base", "other", "vocals"), r"none has 'bass'\. Did you mean 'base'\?"),
        (("speech", "music"), r"would be dnr .* but none has 'effects'"),
    ],
)
def test_a_stem_that_all_songs_lack_is_named(root, stems, message):
    for name in ("first", "second"):
        write_song(root / "test" / name, stems)
    with pytest.raises(ConfigError, match=message):
        open_dataset(root)
    assert open_dataset(root, "folder").stems == tuple(sorted(stems))


@pytest.mark.parametrize("stems", [("drums", "guitar", "other", "vocals"), ("other", "vocals")])
def test_songs_of_other_stems_are_a_folder(root, stems):
    write_song(root / "test" / "song", stems)
    assert open_dataset(root).kind == "folder"


def test_a_missing_mixture_is_a_warning(root):
    write_song(root / "test" / "first")
    write_song(root / "test" / "second", mixture=None)
    dataset = open_dataset(root)
    (problem,) = dataset.problems
    assert (problem.track, problem.severity) == ("second", "warning")
    assert "no file of the mixture; expected: mixture.wav" in problem.text
    assert len(dataset) == 2


def test_a_folder_that_is_not_there(root):
    with pytest.raises(ConfigError, match="does not exist"):
        open_dataset(root / "nothing")
    write(root / "file.wav", noise(0))
    with pytest.raises(ConfigError, match="is not a folder"):
        open_dataset(root / "file.wav")


def no_permission(path: Path) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_folder_that_may_not_be_looked_into(root, monkeypatch):
    write_song(root / "train" / "song")
    monkeypatch.setattr(Path, "iterdir", no_permission)
    with pytest.raises(ConfigError, match=r"Can't look into '.*data': Permission denied\. Mend"):
        open_dataset(root)


def rename(folder: Path) -> None:
    (folder / "vocals.wav").rename(folder / "vocal.wav")


def remove(folder: Path) -> None:
    (folder / "bass.wav").unlink()


def twice(folder: Path) -> None:
    write(folder / "vocals.flac", noise(9))


def another_rate(folder: Path) -> None:
    write(folder / "drums.wav", noise(0), 16000)


def another_length(folder: Path) -> None:
    write(folder / "drums.wav", noise(0, 999))


def mono(folder: Path) -> None:
    write(folder / "drums.wav", noise(0, channels=1))


def cut(folder: Path) -> None:
    data = (folder / "other.wav").read_bytes()
    (folder / "other.wav").write_bytes(data[:-4000])


def garbage(folder: Path) -> None:
    (folder / "other.wav").write_bytes(b"no audio" * 100)


def empty(folder: Path) -> None:
    (folder / "other.wav").write_bytes(b"")


def all_at_another_rate(folder: Path) -> None:
    for path in folder.iterdir():
        write(path, noise(0), 16000)


def all_mono(folder: Path) -> None:
    for path in folder.iterdir():
        write(path, noise(0, channels=1))


BAD_SONGS = [
    (rename, "no stem 'vocals'", "found: .*vocal", "Rename 'vocal' to 'vocals'."),
    (remove, "no stem 'bass'", "drums, bass, other, vocals", "Add its file"),
    (twice, "vocals.flac and vocals.wav", "one file", "in a folder of that name"),
    (another_rate, "drums.wav has 16000 Hz", "8000 Hz like the others", "Convert"),
    (another_length, "drums.wav has 999 samples", "1000 samples", "aligned"),
    (mono, "drums.wav has 1 channels", "2 channels", "Convert"),
    (cut, "other.wav' only 0.0.* s can be decoded", "a whole audio file", "Fetch the song again"),
    (garbage, "other.wav' can't be decoded", "a whole audio file", "Fetch the song again"),
    (empty, "other.wav' is empty", "a whole audio file", "Fetch the song again"),
    (all_at_another_rate, "16000 Hz", "8000 Hz like most songs", "Convert"),
    (all_mono, "1 channels", "2 channels like most songs", "Convert"),
]


@pytest.mark.parametrize(("spoil", "what", "expected", "advice"), BAD_SONGS)
def test_bad_songs_are_named_and_refused_unless_allowed(root, spoil, what, expected, advice):
    for i in range(3):
        write_song(root / "test" / f"song{i}")
    spoil(root / "test" / "song1")
    scanned = scan_dataset(root, "musdb18hq")
    (problem,) = scanned.problems
    assert (problem.track, problem.severity) == ("song1", "error")
    row = dict(zip(PROBLEM_COLUMNS, problem.row(), strict=True))
    assert row["problem"] == problem.what
    for pattern, text in [(what, problem.what), (expected, problem.expected)]:
        assert re.search(pattern, text), text
    assert advice in problem.advice
    with pytest.raises(DatasetError, match=r"1 of 3 songs in .* can't be used, first 'song1'") as e:
        open_dataset(root, "musdb18hq")
    assert e.value.problems == (problem,)
    assert "\n" not in str(e.value)
    partial = open_dataset(root, "musdb18hq", allow_partial=True)
    assert [track.name for track in partial.tracks] == ["song0", "song2"]
    assert partial.errors == (problem,)


def test_every_song_bad_is_refused_even_if_some_may_be(root):
    write_song(root / "test" / "song")
    remove(root / "test" / "song")
    with pytest.raises(DatasetError, match="No song is left"):
        open_dataset(root, "musdb18hq", allow_partial=True)


def test_only_what_is_read_must_be_there(root):
    write_song(root / "test" / "song")
    remove(root / "test" / "song")
    (track,) = open_dataset(root, "musdb18hq", stems=["vocals"]).tracks
    assert track.stems == ("vocals",)
    (root / "test" / "song" / "mixture.wav").unlink()  # now all stems are needed for it
    with pytest.raises(DatasetError, match="no stem 'bass'"):
        open_dataset(root, "musdb18hq", stems=["vocals"])


def test_a_stem_file_with_too_few_streams(root):
    write_stem_file(root / "test" / "song.stem.mp4", [220.0, 330.0])
    with pytest.raises(DatasetError, match=r"mp4 has 2 audio streams; expected: 5"):
        open_dataset(root)


def test_damaged_metadata_is_a_problem_of_one_song(root):
    write_moises(root / "provider" / "good", {"vocals": [noise(0)]}, song="Good")
    (root / "provider" / "bad").mkdir()
    (root / "provider" / "bad" / "data.json").write_text('{"stems": [{"stemName"')
    dataset = open_dataset(root, allow_partial=True)
    assert [track.name for track in dataset.tracks] == ["Good"]
    assert [problem.track for problem in dataset.problems] == ["bad"]
    assert "data.json" in dataset.problems[0].what


def test_a_song_without_any_audio(root):
    write_moises(root / "provider" / "id", {}, song="Song")
    with pytest.raises(DatasetError, match="'Song': no audio"):
        open_dataset(root)


def test_a_file_that_metadata_name_but_nobody_has(root):
    write_moises(root / "provider" / "id", {"vocals": [noise(0), noise(1)]}, song="Song")
    (root / "provider" / "id" / "vocals" / "vocals-1.wav").unlink()
    with pytest.raises(DatasetError, match=r"vocals-1\.wav' can't be read: no such file"):
        open_dataset(root)


def test_medleyvox_needs_to_know_the_main_voice(root):
    for i in range(3):
        write(root / "rest" / "Song" / "seg1" / "gt" / f"voice{i} - seg1.wav", noise(i))
    with pytest.raises(DatasetError, match=r"V1_rest_vocals_only_config/Song\.json"):
        open_dataset(root, "medleyvox_main_vs_rest")


# ---- sums


def test_stems_that_do_not_sum_to_the_mixture_get_a_warning_in_db(root):
    for i in range(2):
        signals = write_song(root / "test" / f"song{i}")
    mixture = sum(signals.values())
    write(root / "test" / "song1" / "mixture.wav", 1.25 * mixture)
    assert not open_dataset(root).problems  # nothing is decoded unless asked
    dataset = open_dataset(root, check_sum=True)
    (problem,) = dataset.problems
    assert (problem.track, problem.severity) == ("song1", "warning")
    level = 20 * np.log10(0.25 / 1.25)
    assert f"at {level:.1f} dB" in problem.what
    assert len(dataset) == 2  # a warning keeps the song


def test_rounding_to_16_bits_is_no_reason_to_warn(root):
    rng = np.random.default_rng(0)
    stems = {stem: 0.01 * rng.standard_normal((2, 4000)) for stem in FOUR}
    for name, signal in {**stems, "mixture": sum(stems.values())}.items():
        write(root / "test" / "song" / f"{name}.flac", signal)
    assert not open_dataset(root, check_sum=True).problems


def test_silence_sums_to_silence(root):
    for name in (*FOUR, "mixture"):
        write(root / "test" / "song" / f"{name}.wav", np.zeros((2, 100), np.float32))
    assert not open_dataset(root, check_sum=True).problems


def test_a_sample_that_is_not_a_number_is_found_where_all_is_decoded(root):
    signal = noise(0, 4000)
    for name in (*FOUR, "mixture"):
        write(root / "test" / "song" / f"{name}.wav", signal)
    signal[0, 500] = np.nan
    write(root / "test" / "song" / "vocals.wav", signal)
    (track,) = open_dataset(root).tracks
    with pytest.raises(AudioError, match=r"vocals\.wav' .* NaN or infinite at 0\.062 s"):
        track.read("vocals", 400, 200)
    with pytest.raises(DatasetError, match=r"vocals\.wav' .* NaN or infinite at 0\.062 s"):
        open_dataset(root, check_sum=True)


# ---- index


@pytest.fixture
def examined(monkeypatch) -> list[str]:
    """The names of the files that were examined."""
    seen: list[str] = []
    real = index.examine

    def examine(place):
        seen.append(place.path.name)
        return real(place)

    monkeypatch.setattr(index, "examine", examine)
    return seen


def test_a_second_look_opens_nothing_but_what_changed(root, examined, cache_folder):
    write_song(root / "song")
    first = open_dataset(root, check_sum=True)
    assert sorted(examined) == sorted(f"{name}.wav" for name in (*FOUR, "mixture"))
    assert list((cache_folder / "datasets").iterdir())
    examined.clear()
    assert open_dataset(root, check_sum=True) == first
    assert not examined
    write(root / "song" / "bass.wav", noise(7, 999))
    (problem,) = scan_dataset(root).problems
    assert examined == ["bass.wav"]
    assert "999" in problem.what


def test_nobody_looks_at_songs_beyond_the_limit(root, examined):
    for name in ("a", "b", "c"):
        write_song(root / "test" / name)
    garbage(root / "test" / "c")
    dataset = open_dataset(root, "musdb18hq", check_sum=True, limit=2)
    assert [track.name for track in dataset.tracks] == ["a", "b"]
    assert len(examined) == 2 * 5


def test_a_mended_file_is_looked_at_again(root, examined):
    write_song(root / "song")
    whole = (root / "song" / "other.wav").read_bytes()
    garbage(root / "song")
    assert scan_dataset(root).errors
    (root / "song" / "other.wav").write_bytes(whole)
    assert not scan_dataset(root).errors
    assert examined.count("other.wav") == 2


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": 0}', '{"version": 1}'])
def test_an_index_that_cannot_be_used_only_costs_time(root, tmp_path, text):
    write_song(root / "song")
    path = tmp_path / "index.json"
    path.write_text(text)
    assert len(open_dataset(root, index=path)) == 1
    assert json.loads(path.read_text())["files"]


def test_an_index_that_cannot_be_written_only_costs_time(root):
    write_song(root / "song")
    blocked = root / "song" / "bass.wav" / "index.json"  # below a file
    assert len(open_dataset(root, index=blocked)) == 1


# ---- leaks


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("not stated", {}),
        ("Synthetic music only: songs composed and played by a seeded generator", {}),
        ("MUSDB18-HQ train only", {"musdb18": {"train", "validation"}}),
        ("MUSDB18 only", {"musdb18": {"train", "validation"}}),
        ("MUSDB-HQ train+test + 150 songs", {"musdb18": {"train", "validation", "test"}}),
        ("musdb18 train, test and 800 songs", {"musdb18": {"train", "validation", "test"}}),
        ("all of MUSDB18-HQ", {"musdb18": {"train", "validation", "test"}}),
        ("includes 38 of the 50 MUSDB18-HQ test tracks", {"musdb18": {"test"}}),
        ("MUSDB18 train without its validation songs", {"musdb18": {"train"}}),
        ("MUSDB18-HQ train; tested on MUSDB18-HQ test", {"musdb18": {"train", "validation"}}),
        ("MUSDB18 train, the test set held out", {"musdb18": {"train", "validation"}}),
        ("500 internal songs, not MUSDB18", {}),
        ("Divide and Remaster v2 train", {"dnr": {"train"}}),
        ("DnR-v3 train, MoisesDB", {"dnr": {"train"}, "moisesdb": {"train", "validation", "test"}}),
        (
            "MUSDB18-HQ train + Slakh2100 test",
            {"musdb18": {"train", "validation"}, "slakh2100": {"test"}},
        ),
    ],
)
def test_words_about_training_data_are_understood(text, found):
    assert trained_on(text) == found


def card(text: str) -> SimpleNamespace:
    return SimpleNamespace(name="model", training_data=text)


def test_a_model_is_not_tested_on_what_it_was_trained_on(root):
    for folder in ("train/a", "train/ANiMAL - Rockshow", "test/b"):
        write_song(root / folder)
    sets = {split: open_dataset(root, split=split) for split in ("train", "validation", "test")}
    train_only, everything = card("MUSDB18-HQ train"), card("MUSDB18-HQ train+test")
    leak_check(train_only, sets["test"])
    leak_check(card("not stated"), sets["train"])
    for model, split in [
        (train_only, "train"),
        (train_only, "validation"),
        (everything, "test"),
        (card(f"songs in {root.resolve()}"), "test"),
    ]:
        with pytest.raises(
            ConfigError, match=r"'model' can't be tested on musdb18hq .*--allow-leak"
        ):
            leak_check(model, sets[split])


def test_any_training_on_songs_without_splits_is_a_leak(root):
    write_moises(root / "provider" / "id", {"vocals": [noise(0)]}, song="Song")
    with pytest.raises(ConfigError, match="can't be tested on moisesdb test"):
        leak_check(card("MoisesDB train"), open_dataset(root))
