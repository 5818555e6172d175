"""Data sets that are as they should be: kinds, splits, stems, and reading them."""

import importlib.util
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import yaml
from songsets import FOUR, RATE, noise, write, write_moises, write_song, write_stem_file

from separator.datasets import MUSDB18_VALIDATION, LoadedAudio, from_musdb, open_dataset
from separator.datasets.layouts import find_kind
from separator.errors import AudioError, ConfigError

pytest_plugins = ["songsets"]
pytestmark = pytest.mark.usefixtures("cache_folder")


# ---- tracks: what is read is what the files hold, wherever one starts


def test_stems_and_mixture_are_read_as_written(root):
    signals = write_song(root / "song")
    dataset = open_dataset(root, "folder")
    (track,) = dataset.tracks
    assert (track.name, track.sample_rate, track.channels, track.samples) == ("song", RATE, 2, 1000)
    assert dataset.stems == track.stems == ("bass", "drums", "other", "vocals")
    for stem, signal in signals.items():
        np.testing.assert_array_equal(track.read(stem), signal)
    np.testing.assert_array_equal(track.mixture(), sum(signals.values()))
    assert track.read("bass").dtype == np.float32
    assert track.duration == 0.125


@pytest.mark.parametrize(("start", "samples"), [(0, 1), (1, 998), (999, 1), (333, 333)])
def test_any_piece_can_be_read(root, start, samples):
    signals = write_song(root / "song")
    (track,) = open_dataset(root).tracks
    piece = track.read("vocals", start, samples)
    np.testing.assert_array_equal(piece, signals["vocals"][:, start : start + samples])
    seconds = track.mixture(start / RATE, samples / RATE)
    np.testing.assert_array_equal(seconds, track.mixture()[:, start : start + samples])


@pytest.mark.parametrize(
    ("ending", "subtype"),
    [
        ("wav", "PCM_16"),
        ("wav", "PCM_24"),
        ("wav", "FLOAT"),
        ("flac", "PCM_16"),
        ("flac", "PCM_24"),
    ],
)
def test_both_ways_to_decode_give_the_same(root, ending, subtype):
    signal = np.random.default_rng(0).uniform(-1, 1, (2, 30_000)).astype(np.float32)
    (root / "song").mkdir()
    soundfile.write(root / "song" / f"a.{ending}", signal.T, RATE, subtype)
    (track,) = open_dataset(root).tracks
    (file,) = track.files["a"]
    assert file.direct
    decoder = replace(file, direct=False)
    for start, samples in [(0, 30_000), (12_345, 6_789), (29_999, 1)]:
        ours = list(file.blocks(start, samples, 1000))
        theirs = list(decoder.blocks(start, samples, 1000))
        assert [block.shape for block in ours] == [block.shape for block in theirs]
        np.testing.assert_array_equal(np.hstack(ours), np.hstack(theirs))


def test_silence_follows_the_end(root):
    signals = write_song(root / "song")
    (track,) = open_dataset(root).tracks
    piece = track.read("drums", 900, 300)
    np.testing.assert_array_equal(piece[:, :100], signals["drums"][:, 900:])
    assert piece.shape == (2, 300)
    assert not piece[:, 100:].any()
    assert not track.read("drums", 5000, 10).any()
    assert track.read("drums", 5000).shape == (2, 0)


@pytest.mark.parametrize("block_samples", [1, 128, 333, 999, 1000, 4096])
def test_blocks_join_to_the_whole(root, block_samples):
    write_song(root / "song", mixture=None)
    (track,) = open_dataset(root).tracks
    blocks = list(track.blocks(start=1, samples=998, block_samples=block_samples))
    assert {block.shape[1] for block in blocks[:-1]} <= {block_samples}
    np.testing.assert_array_equal(np.concatenate(blocks, 1), track.mixture()[:, 1:999])


def test_files_of_a_stem_are_summed_and_so_is_a_missing_mixture(root):
    left, right, voice = noise(0), noise(1), noise(2)
    write(root / "song" / "Guitar" / "left.wav", left)
    write(root / "song" / "Guitar" / "right.flac", right)
    write(root / "song" / "Voice.wav", voice)
    (track,) = open_dataset(root).tracks
    assert track.stems == ("guitar", "voice")
    np.testing.assert_array_equal(track.read("guitar"), left + right)
    np.testing.assert_array_equal(track.mixture(), left + right + voice)


@pytest.mark.parametrize("direct", [True, False])
def test_a_file_that_shrinks_after_the_scan_is_an_error_not_silence(root, direct):
    write_song(root / "song")
    (track,) = open_dataset(root).tracks
    (bass,) = track.files["bass"]
    track = replace(track, files={"bass": (replace(bass, direct=direct),)})
    write(root / "song" / "bass.wav", noise(1, 600))
    np.testing.assert_array_equal(track.read("bass", 0, 600), noise(1, 600))
    for start, samples in [(0, 601), (0, None), (600, 1), (900, 100)]:
        with pytest.raises(AudioError, match=r"bass.wav"):
            track.read("bass", start, samples)


def test_the_identity_of_a_track_is_that_of_its_files(root):
    write_song(root / "song")
    (track,) = open_dataset(root).tracks
    before = track.identity()
    assert before == open_dataset(root).tracks[0].identity()
    assert before.keys() == {"mixture", *FOUR}
    path = root / "song" / "bass.wav"
    write(path, noise(7))  # as long as it was
    os.utime(path, ns=(0, 0))
    after = track.identity()
    assert [stem for stem in before if before[stem] != after[stem]] == ["bass"]
    path.unlink()
    with pytest.raises(FileNotFoundError):
        track.identity()


def test_impossible_pieces_are_refused(root):
    write_song(root / "song")
    (track,) = open_dataset(root).tracks
    with pytest.raises(ConfigError, match=r"no stem 'vocal'.*Did you mean 'vocals'"):
        track.read("vocal")
    for start, samples in [(-1, 5), (0, -5)]:
        with pytest.raises(ConfigError, match="can't be read from sample"):
            track.read("bass", start, samples)


def test_data_sets_travel_to_other_processes(root):
    write_song(root / "song")
    dataset = open_dataset(root)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy == dataset
    np.testing.assert_array_equal(copy.tracks[0].mixture(), dataset.tracks[0].mixture())


# ---- stems: which files they mean


def test_derived_stems_are_what_others_leave(root):
    signals = write_song(root / "test" / "song")
    wanted = ("Vocals", "instrumental")
    (track,) = open_dataset(root, stems=wanted).tracks
    assert track.stems == wanted
    np.testing.assert_array_equal(track.read("Vocals"), signals["vocals"])
    rest = signals["drums"] + signals["bass"] + signals["other"]
    np.testing.assert_array_equal(track.read("instrumental"), rest)


@pytest.mark.parametrize("name", ["instrumental", "accompaniment", "no_vocals"])
def test_vocals_and_the_rest_make_up_a_song(root, name):
    signals = write_song(root / "song", ("vocals", name), mixture=None)
    (track,) = open_dataset(root, stems=["vocals", "instrumental"]).tracks
    np.testing.assert_array_equal(track.mixture(), signals["vocals"] + signals[name])
    np.testing.assert_array_equal(track.read("instrumental"), signals[name])


def test_other_shrinks_with_the_stems_that_are_asked_for(root):
    signals = write_song(root / "song", (*FOUR, "guitar"))
    (four,) = open_dataset(root, stems=FOUR).tracks
    np.testing.assert_array_equal(four.read("other"), signals["other"] + signals["guitar"])
    (five,) = open_dataset(root, stems=(*FOUR, "guitar")).tracks
    np.testing.assert_array_equal(five.read("other"), signals["other"])


def test_a_file_with_several_stems_is_no_part_of_the_mixture(root):
    signals = write_song(root / "song", ("vocals", "piano"), mixture=None)
    write(root / "song" / "instrumental.wav", signals["piano"])
    (track,) = open_dataset(root).tracks
    np.testing.assert_array_equal(track.mixture(), signals["vocals"] + signals["piano"])
    np.testing.assert_array_equal(track.read("instrumental"), signals["piano"])


@pytest.mark.parametrize(
    ("stems", "message"),
    [
        (["vocal"], r"No song in .* has a stem 'vocal'; there are: bass, drums, .*'vocals'\?"),
        (["vocals", "VOCALS"], "'vocals' was asked for twice"),
        ([], "No stems were asked for"),
    ],
)
def test_stems_that_nobody_has_are_refused(root, stems, message):
    write_song(root / "test" / "song")
    with pytest.raises(ConfigError, match=message):
        open_dataset(root, stems=stems)


def test_songs_without_a_stem_in_common_are_refused(root):
    for i in range(3):
        write_song(root / f"song{i}", (f"a{i}", f"b{i}"))
    with pytest.raises(ConfigError, match="no stem in common; name the stems alike"):
        open_dataset(root)


# ---- kinds


def test_stem_files_are_read_stream_by_stream(root):
    tones = [220.0, 330.0, 440.0, 550.0, 660.0]
    write_stem_file(root / "test" / "A - B.stem.mp4", tones)
    dataset = open_dataset(root)
    (track,) = dataset.tracks
    assert (dataset.kind, track.name, track.stems) == ("musdb18_7s", "A - B", FOUR)
    for stem, tone in zip(("mixture", *FOUR), tones, strict=True):
        whole = track.read(stem)
        spectrum = np.abs(np.fft.rfft(whole[0]))
        assert abs(spectrum.argmax() * 44100 / whole.shape[1] - tone) < 1
        np.testing.assert_allclose(
            track.read(stem, 70_001, 5003), whole[:, 70_001:75_004], atol=1e-4
        )


def test_longer_stem_files_are_the_full_set(root):
    write_stem_file(root / "train" / "song.stem.mp4", [100.0], seconds=10.5, rate=RATE)
    assert find_kind(root, "auto") == "musdb18"


def test_musdb18hq_is_recognised_and_keeps_its_order(root):
    write_song(root / "test" / "song")
    dataset = open_dataset(root)
    assert (dataset.kind, dataset.stems, dataset.has_splits) == ("musdb18hq", FOUR, True)


def test_moisesdb_gives_four_stems_or_those_of_its_taxonomy(root):
    parts = {
        "vocals": [noise(0), noise(1, 900)],
        "guitar": [noise(2, channels=1)],
        "other_plucked": [noise(3, 1100)],
        "bass": [noise(4)],
    }
    write_moises(root / "moisesdb_v0.1" / "id1", parts, artist="AC/DC", song="Song")
    write_moises(root / "moisesdb_v0.1" / "id2", {"drums": [noise(5)]}, artist="B", song="Song")
    dataset = open_dataset(root)
    assert (dataset.kind, dataset.stems, dataset.has_splits) == ("moisesdb", FOUR, False)
    assert [track.name for track in dataset.tracks] == ["AC_DC - Song", "B - Song"]
    track = dataset.tracks[0]
    assert (track.samples, track.channels) == (1100, 2)
    vocals = np.pad(noise(0), ((0, 0), (0, 100)))
    vocals[:, :900] += noise(1, 900)
    np.testing.assert_array_equal(track.read("vocals"), vocals)
    other = noise(3, 1100)
    other[:, :1000] += noise(2, channels=1)  # mono, on both channels
    np.testing.assert_array_equal(track.read("other"), other)
    assert not track.read("drums").any()  # a song without drums has silent ones
    total = sum(track.read(stem) for stem in FOUR)
    np.testing.assert_array_equal(track.mixture(), total)
    six = open_dataset(root, stems=(*FOUR, "guitar")).tracks[0]
    np.testing.assert_array_equal(six.read("other"), noise(3, 1100))


def test_slakh_groups_instruments_by_class(root):
    classes = ["Piano", "Drums", "Bass", "Strings (continued)", "Guitar"]
    signals = [noise(i, channels=1) for i in range(5)]
    folder = root / "test" / "Track01876"
    stems = {
        f"S{i:02}": {"inst_class": name, "is_drum": name == "Drums", "audio_rendered": i < 4}
        for i, name in enumerate(classes)
    }
    for name, signal in zip(list(stems)[:4], signals, strict=False):
        write(folder / "stems" / f"{name}.flac", signal)
    write(folder / "mix.flac", sum(signals[:4]))
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"stems": stems}))
    dataset = open_dataset(root, check_sum=True)
    assert (dataset.kind, dataset.stems) == ("slakh2100", ("drums", "bass", "other"))
    assert not dataset.problems
    np.testing.assert_array_equal(dataset.tracks[0].read("other"), signals[0] + signals[3])
    (track,) = open_dataset(root, stems=["piano", "strings_(continued)"]).tracks
    np.testing.assert_array_equal(track.read("piano"), signals[0])
    np.testing.assert_array_equal(track.read("strings_(continued)"), signals[3])


@pytest.mark.parametrize(
    ("folder", "ending", "mixture"),
    [("tt/1002", "wav", "mix.wav"), ("audio/test/5", "flac", "mixture.flac")],
)
def test_both_layouts_of_divide_and_remaster(root, folder, ending, mixture):
    signals = {stem: noise(i, channels=1) for i, stem in enumerate(("speech", "music", "sfx"))}
    for stem, signal in signals.items():
        write(root / folder / f"{stem}.{ending}", signal)
    write(root / folder / mixture, sum(signals.values()))
    if ending == "flac":
        write(root / folder / "sfx_fg.flac", signals["sfx"] / 2)
    dataset = open_dataset(root, check_sum=True)
    assert (dataset.kind, dataset.stems) == ("dnr", ("speech", "music", "effects"))
    assert not dataset.problems
    np.testing.assert_array_equal(dataset.tracks[0].read("effects"), signals["sfx"])
    (track,) = open_dataset(root, stems=["sfx"]).tracks
    np.testing.assert_array_equal(track.read("sfx"), signals["sfx"])


def write_voices(root: Path, subset: str, voices: int) -> list[np.ndarray]:
    folder = root / subset / "Song" / "seg1"
    signals = [noise(i, channels=1) for i in range(voices)]
    for i, signal in enumerate(signals):
        write(folder / "gt" / f"Song_RAW_0{i} - seg1.wav", signal)
    write(folder / "mix" / "Song - seg1.wav", sum(signals))
    return signals


def test_medleyvox_has_singers_in_no_order(root):
    write_voices(root, "duet", 2)
    write_voices(root, "unison", 2)
    voices = write_voices(root, "rest", 4)
    dataset = open_dataset(root)
    assert dataset.kind == "medleyvox"
    assert not dataset.ordered
    assert sorted(len(track.stems) for track in dataset.tracks) == [2, 2, 4]
    assert len({track.name for track in dataset.tracks}) == 3
    assert dataset.stems == ("singer1", "singer2", "singer3", "singer4")
    (unison,) = open_dataset(root, "medleyvox_unison").tracks
    assert unison.stems == ("singer1", "singer2")
    config = root / "testset_config" / "V2_vocals_only_config" / "Song.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"seg1": {"main_vocal": "Song_RAW_02", "other_vocals": []}}))
    (track,) = open_dataset(root, "medleyvox_main_vs_rest").tracks
    np.testing.assert_array_equal(track.read("main"), voices[2])
    np.testing.assert_array_equal(track.read("rest"), voices[0] + voices[1] + voices[3])


def musdb_track(name: str, **targets: np.ndarray) -> SimpleNamespace:
    """Return what the package `musdb` makes of a song: audio is (time, channels), float64."""
    sources = {key: SimpleNamespace(audio=audio.T.astype(float)) for key, audio in targets.items()}
    audio = sum(source.audio for source in sources.values())
    return SimpleNamespace(name=name, rate=44100, audio=audio, targets=sources, subset="test")


def test_tracks_of_the_musdb_package_are_wrapped():
    signals = {stem: noise(i) for i, stem in enumerate(FOUR)}
    dataset = from_musdb([musdb_track("song", **signals)])
    (track,) = dataset.tracks
    assert (dataset.kind, dataset.split, track.sample_rate) == ("musdb", "test", 44100)
    np.testing.assert_array_equal(track.read("bass", 10, 20), signals["bass"][:, 10:30])
    np.testing.assert_array_equal(track.mixture(), sum(signals.values()))
    blocks = list(track.blocks("vocals", block_samples=300))
    np.testing.assert_array_equal(np.concatenate(blocks, 1), signals["vocals"])
    (again,), (other,) = (
        from_musdb([musdb_track(name, **signals)]).tracks for name in ("song", "other")
    )
    assert again.identity() == track.identity() != other.identity()
    with pytest.raises(ConfigError, match="no target 'guitar'; it has: drums"):
        from_musdb([musdb_track("song", **signals)], stems=["guitar"])
    with pytest.raises(ConfigError, match="no tracks"):
        from_musdb([])


def test_loaded_audio_takes_its_samples_to_another_process():
    signal = noise(0)
    audio = LoadedAudio(lambda: signal.T, 2, signal.shape[1], name="song")
    copy = pickle.loads(pickle.dumps(audio))
    assert copy.identity() == audio.identity()
    np.testing.assert_array_equal(
        np.concatenate(list(copy.blocks(5, 100, 64)), 1), signal[:, 5:105]
    )
    assert pickle.loads(pickle.dumps(copy)).identity() == audio.identity()


# ---- splits


def names(path: Path, **options: object) -> list[str]:
    return [track.name for track in open_dataset(path, **options).tracks]


def test_the_official_list_takes_songs_out_of_train(root):
    listed = "Skelpolu - Human Mistakes"
    for folder in (f"train/{listed}", "train/Other - Song", "test/Test - Song"):
        write_song(root / folder)
    assert names(root, split="train") == ["Other - Song"]
    assert names(root, split="validation") == [listed]
    assert names(root, split="train+validation") == ["Other - Song", listed]
    assert names(root, split="test") == ["Test - Song"]
    assert len(names(root, split="all")) == 3
    assert len(MUSDB18_VALIDATION) == 14


def test_the_official_list_is_that_of_the_musdb_package():
    spec = importlib.util.find_spec("musdb")  # to import it, programs are needed
    if spec is None or spec.origin is None:
        pytest.skip("musdb is not installed")
    text = Path(spec.origin).with_name("configs").joinpath("mus.yaml").read_text("utf-8")
    assert set(yaml.safe_load(text)["validation_tracks"]) == MUSDB18_VALIDATION


def test_a_folder_for_validation_overrules_the_list(root):
    for folder in ("train/Meaxic - Take A Step", "valid/song"):
        write_song(root / folder)
    assert names(root, split="train") == ["Meaxic - Take A Step"]
    assert names(root, split="validation") == ["song"]


def test_songs_without_splits_are_divided_once_and_for_all(root):
    for i in range(20):
        write(root / f"song{i}" / "a.wav", noise(0, 10))
    train, validation = names(root, split="train"), names(root, split="validation")
    assert train and validation
    assert sorted(train + validation) == names(root, split="test") == names(root, split="all")
    for i in range(20, 30):
        write(root / f"song{i}" / "a.wav", noise(0, 10))
    assert set(train) <= set(names(root, split="train"))
    assert set(validation) <= set(names(root, split="validation"))


def test_songs_of_one_name_are_told_apart(root):
    for split in ("train", "test"):
        write_song(root / split / "song")
    assert names(root, split="all") == ["song (1)", "song (2)"]


def test_a_single_song_is_a_data_set(root):
    write_song(root / "song")
    assert names(root / "song") == ["song"]
