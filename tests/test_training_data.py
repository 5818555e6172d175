"""What is trained on: where stems sound, how segments are drawn and mixed, songs of all kinds."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from training_runs import TINY
from training_songs import RATE, STEMS, folder_options, plan_of, stream, write_songs

from separator.datasets import DatasetError, Track, open_dataset
from separator.errors import ConfigError
from separator.schema import validate
from separator.training.data import batches as batches_module
from separator.training.data import cache as cache_module
from separator.training.data import sources
from separator.training.data.batches import Batches
from separator.training.data.build import DataOptions, folder_library
from separator.training.data.cache import Cache
from separator.training.data.mixing import (
    Activity,
    Library,
    Recording,
    active_windows,
    chunk_levels,
    mix,
    recording,
)
from separator.training.data.sources import MixedSongs, Synthetic, SyntheticSongs
from separator.training.recipe import resolve
from separator.training.validation import validation_tracks

WINDOW = 6 * RATE


def marked(song, frames, channels=1):
    """Return a stem whose samples tell their song and time: song + time / 1e5, never silent."""
    time = np.arange(frames, dtype=np.float32) / 1e5
    return np.repeat((song + 1.0 + time)[None], channels, axis=0).astype(np.float32)


def marked_library(songs=4, frames=12 * RATE, weights=None):
    activity = Activity(quantile=0.0, share=0.0)
    made = [
        {stem: recording(marked(number, frames), RATE, activity) for stem in ("drums", "vocals")}
        for number in range(songs)
    ]
    return Library(made, weights or [1.0] * songs, WINDOW, 1)


def song_and_time(audio):
    """Undo `marked`."""
    first = float(audio[..., 0].reshape(-1)[0])
    return int(first) - 1, round((first - int(first)) * 1e5)


# --- where stems sound


def test_levels_of_chunks():
    audio = np.ones((2, 1500), np.float32)
    audio[:, 600:1200] = 0.5
    audio[1, 1200:] = 0.0
    assert chunk_levels(audio, RATE).tolist() == pytest.approx([1.0, 0.5, math.sqrt(0.5)])


def test_windows_avoid_silence():
    levels = np.zeros(40, np.float32)
    levels[20:] = 0.1 + 0.01 * np.arange(20)
    assert active_windows(levels, Activity()).tolist() == [20, 25, 30]
    # from 15 on, exactly half of a window sounds: not more than half
    assert active_windows(levels, Activity(share=0.4)).tolist() == [15, 20, 25, 30]


def test_what_is_quieter_than_the_floor_is_silence():
    levels = np.full(10, 5e-4, np.float32)
    assert len(active_windows(levels, Activity())) == 0
    assert active_windows(levels, Activity(floor=1e-4)).tolist() == [0]


def test_the_softest_chunks_of_a_stem_are_its_silence():
    levels = np.concatenate([np.full(10, 0.01), np.linspace(0.5, 1.0, 30)]).astype(np.float32)
    assert 0 in active_windows(levels, Activity(quantile=0.2))
    assert 0 not in active_windows(levels, Activity(quantile=0.3))


@pytest.mark.parametrize(
    ("chunks", "starts"), [(0, []), (1, [0]), (9, [0]), (14, [0]), (15, [0, 5])]
)
def test_a_short_stem_is_one_window(chunks, starts):
    levels = np.full(chunks, 0.1, np.float32)
    assert active_windows(levels, Activity()).tolist() == starts


# --- drawing and mixing


def test_reading_beyond_the_end_gives_silence():
    stem = Recording(np.full((10, 2), 16384, np.int16), 10, np.array([0]), scale=1 / 32768)
    assert stem.read(8, 4).tolist() == [[0.5, 0.5, 0.0, 0.0]] * 2
    assert not stem.read(50, 4).any()


@pytest.mark.parametrize("samples", [1, 500, WINDOW, 8 * RATE, 20 * RATE])
def test_segments_lie_where_the_stem_sounds(samples):
    frames = 30 * RATE
    audio = np.zeros((1, frames), np.float32)
    audio[:, 12 * RATE : 18 * RATE] = np.random.default_rng(0).normal(0, 0.1, 6 * RATE)
    library = Library(
        [{"vocals": recording(audio, RATE, Activity(quantile=0.0, share=0.9))}], [1.0], WINDOW, 1
    )
    assert library.windows("vocals").tolist() == [[0, 12 * RATE]]
    rng = np.random.default_rng(0)
    for _ in range(50):
        song, start = library.draw("vocals", samples, rng)
        assert song == 0
        if samples <= WINDOW:
            assert 12 * RATE <= start <= 18 * RATE - samples
        else:
            assert 18 * RATE - samples <= start <= 12 * RATE
        assert 0 <= start <= frames - samples


def test_weights_decide_how_often_songs_are_drawn():
    library = marked_library(songs=2, weights=[1.0, 3.0])
    rng = np.random.default_rng(0)
    drawn = [library.draw("drums", 100, rng)[0] for _ in range(2000)]
    assert np.mean(drawn) == pytest.approx(0.75, abs=0.03)  # three standard deviations


def test_coherent_segments_come_from_one_place():
    library, rng = marked_library(), np.random.default_rng(0)
    for _ in range(20):
        drums, vocals = mix(library, ("drums", "vocals"), 300, rng, coherent=1.0)
        assert np.array_equal(drums, vocals)


def test_random_segments_come_from_songs_of_their_own():
    library, rng = marked_library(), np.random.default_rng(0)
    places = [
        [song_and_time(stem) for stem in mix(library, ("drums", "vocals"), 300, rng, coherent=0.0)]
        for _ in range(200)
    ]
    same_song = np.mean([one[0] == two[0] for one, two in places])
    assert same_song == pytest.approx(1 / 4, abs=0.1)
    assert {song for pair in places for song, _ in pair} == {0, 1, 2, 3}


def test_doubled_stems_are_sums_of_two():
    library, rng = marked_library(songs=1), np.random.default_rng(0)
    once = mix(library, ("drums",), 300, rng, coherent=0.0, doubled=0.0)
    twice = mix(library, ("drums",), 300, rng, coherent=0.0, doubled=1.0)
    assert 1.0 <= float(once.min()) < 2.0 <= float(twice.min())


def test_a_stem_that_a_song_lacks_is_silent_in_it():
    songs = [{"drums": recording(marked(0, 12 * RATE), RATE, Activity(quantile=0.0, share=0.0))}]
    out = mix(Library(songs, [1.0], WINDOW, 1), ("drums",), 10, np.random.default_rng(0))
    assert out.any()
    library = Library([*songs, *marked_library(1).songs], [1.0, 0.0], WINDOW, 1)
    assert not library.read("vocals", 0, 0, 10).any()


def test_a_stem_that_never_sounds_is_refused():
    with pytest.raises(ConfigError, match=r"'vocal' sounds in none.*Did you mean 'vocals'"):
        MixedSongs(marked_library(), plan_of(stems=("vocal",)))


# --- the stream


def test_a_stream_goes_on_where_it_was_left():
    source = MixedSongs(marked_library(), plan_of())
    whole = Batches(source, 4)
    first = list(whole)
    assert len(first) == len(whole) == 4
    assert whole.epoch == 1
    every = first + list(whole)

    begun = Batches(source, 4)
    iterator = iter(begun)
    start = [next(iterator) for _ in range(3)]
    gone_on = Batches(MixedSongs(marked_library(), plan_of()), 4)
    gone_on.load_state_dict(json.loads(json.dumps(begun.state_dict())))
    rest = [*gone_on, *gone_on]
    assert len(rest) == 1 + 4
    assert all(map(torch.equal, start + rest, every))
    assert not torch.equal(every[0], every[4])


def test_processes_share_the_segments():
    alone = MixedSongs(marked_library(), plan_of(batch=4))
    pair = [
        MixedSongs(marked_library(), plan_of(batch=2, rank=rank, world_size=2)) for rank in (0, 1)
    ]
    for position in range(3):
        both = torch.cat([source[position] for source in pair])
        assert torch.equal(both, alone[position])


def test_seeds_differ():
    one, two = (MixedSongs(marked_library(), plan_of(seed=seed))[0] for seed in (1, 2))
    assert not torch.equal(one, two)


@pytest.mark.slow
def test_workers_change_nothing(tmp_path):
    options = folder_options(write_songs(tmp_path / "songs"), steps_per_epoch=3)
    alone = list(stream(options))
    batches = stream(options.model_copy(update={"workers": 1}))
    assert all(map(torch.equal, batches, alone))
    batches.load_state_dict({"position": 2})
    assert [torch.equal(batch, alone[2]) for batch in batches] == [True]


SMALL_SHARED_MEMORY = """
import torch
from separator.training.data.batches import Batches

class Numbers:
    def __getitem__(self, position):
        return torch.full((2, 4, 2, 44100), float(position))

if __name__ == "__main__":
    batches = Batches(Numbers(), 6, workers=1)
    print([float(batch.mean()) for batch in batches])
    batches.close()
"""


@pytest.mark.slow
def test_batches_arrive_where_shared_memory_is_small(tmp_path):
    """Each takes 2.8 MB of the 512 kB that there are, as in a container."""
    (tmp_path / "program.py").write_text(SMALL_SHARED_MEMORY)
    script = f"""mount -t tmpfs -o size=512k tmpfs /dev/shm || exit 77
        exec {sys.executable} program.py"""
    try:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip("mounting is not allowed here")
    assert (done.returncode, done.stdout) == (0, "[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]\n"), done.stderr
    assert done.stderr == ""


def test_a_batch_that_memory_cannot_share_is_handed_over(monkeypatch):
    def full(tensor):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    source = [torch.arange(6.0), torch.ones(6)]
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    items = [batches_module._Items(source)[position] for position in range(2)]
    assert [type(item) for item in items] == [np.ndarray] * 2
    assert all(torch.equal(torch.as_tensor(a), b) for a, b in zip(items, source, strict=True))


# --- songs on disk


def test_segments_are_those_of_the_files(tmp_path):
    folder = write_songs(tmp_path / "songs", songs=1)
    options = folder_options(folder, coherent=1.0)
    (batch,) = stream(options.model_copy(update={"steps_per_epoch": 1}))
    assert batch.shape == (2, 4, 2, RATE)
    for row, stem in enumerate(STEMS):
        audio, _ = soundfile.read(folder / "train" / "song 0" / f"{stem}.wav", dtype="float32")
        segment = batch[0, row].numpy().T
        first = np.flatnonzero((audio[: -RATE + 1] == segment[0]).all(1))
        assert any(np.array_equal(audio[i : i + RATE], segment) for i in first)


def test_songs_are_decoded_once(tmp_path, monkeypatch):
    options = folder_options(write_songs(tmp_path / "songs"))
    expected = next(iter(stream(options)))
    decoded = []
    blocks = Track.blocks
    monkeypatch.setattr(
        Track, "blocks", lambda self, stem: decoded.append((self.name, stem)) or blocks(self, stem)
    )
    assert torch.equal(next(iter(stream(options))), expected)
    assert decoded == []
    # as if the last run had been killed while it wrote one stem
    victim = next(path for path in (tmp_path / "cache").glob("*.json"))
    facts = json.loads(victim.read_text())
    victim.unlink()
    assert torch.equal(next(iter(stream(options))), expected)
    assert decoded == [(facts["track"], facts["stem"])]


def test_changed_files_are_decoded_again(tmp_path):
    folder = write_songs(tmp_path / "songs", songs=1)
    dataset = open_dataset(folder, split="train", stems=STEMS)
    cache = Cache(tmp_path / "cache", RATE, 2)
    (before,), _ = cache.songs(dataset.tracks, STEMS)
    audio = np.full((9 * RATE, 2), 1000, np.int16)
    for name in (*STEMS, "mixture"):
        soundfile.write(folder / "train" / "song 0" / f"{name}.wav", audio, RATE, "PCM_16")
    (after,), _ = cache.songs(open_dataset(folder, split="train", stems=STEMS).tracks, STEMS)
    assert before["bass"].path != after["bass"].path
    assert after["bass"].frames == 9 * RATE


def test_a_silent_stem_takes_no_place(tmp_path):
    folder = write_songs(tmp_path / "songs", songs=1)
    silence = np.zeros((8 * RATE, 2), np.int16)
    soundfile.write(folder / "train" / "song 0" / "bass.wav", silence, RATE, "PCM_16")
    cache = Cache(tmp_path / "cache", RATE, 2)
    (song,), _ = cache.songs(open_dataset(folder, split="train", stems=STEMS).tracks, STEMS)
    assert sorted(song) == ["drums", "other", "vocals"]
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3


def test_a_cache_that_cannot_be_written_to_is_named(tmp_path):
    options = folder_options(write_songs(tmp_path / "songs", songs=1))
    (tmp_path / "file").write_text("in the way")
    options = options.model_copy(update={"cache": str(tmp_path / "file")})
    with pytest.raises(ConfigError, match=r"Can't keep songs in .*'data.cache'"):
        stream(options)


@pytest.mark.parametrize(("rate", "channels"), [(2 * RATE, 2), (RATE, 1)])
def test_other_rates_and_channels(tmp_path, rate, channels):
    options = folder_options(write_songs(tmp_path / "songs", songs=1))
    batch = next(iter(stream(options, sample_rate=rate, channels=channels)))
    assert batch.shape == (2, 4, channels, rate)
    assert float(batch.std()) == pytest.approx(0.053 / (2 if channels == 1 else 1) ** 0.5, rel=0.1)


def test_mono_files_become_two_equal_channels(tmp_path):
    folder = write_songs(tmp_path / "songs", songs=1, channels=1)
    batch = next(iter(stream(folder_options(folder))))
    assert torch.equal(batch[:, :, 0], batch[:, :, 1])


def test_channels_that_fit_no_network_are_named(tmp_path):
    options = folder_options(write_songs(tmp_path / "songs", songs=1, channels=3))
    with pytest.raises(ConfigError, match=r"'song 0' has 3 channels; .* of 2 .* Convert"):
        stream(options)


@pytest.mark.parametrize(("sample_type", "error"), [("int16", 0.5 / 32767), ("float16", 2.0**-11)])
@pytest.mark.parametrize("peak", [0.5, 2.5])
def test_two_bytes_are_enough(sample_type, error, peak):
    audio = np.random.default_rng(0).uniform(-peak, peak, (2, 1000)).astype(np.float32)
    samples, scale = cache_module.packed(audio, sample_type)
    assert samples.itemsize == 2
    found = Recording(samples.T, 1000, np.array([0]), scale).read(0, 1000)
    assert np.abs(found - audio).max() <= error * max(peak, 1.0) * 1.001


def test_songs_with_problems_are_left_out_only_when_asked(tmp_path):
    folder = write_songs(tmp_path / "songs")
    (folder / "train" / "song 1" / "bass.wav").write_bytes(b"no audio")
    options = folder_options(folder)
    with pytest.raises(DatasetError, match="allow-partial") as caught:
        stream(options)
    assert {problem.track for problem in caught.value.problems} == {"song 1"}
    plan = plan_of(stems=STEMS, channels=2)
    assert len(folder_library(options, plan, allow_partial=True).songs) == 2


def not_a_number(path):
    audio, rate = soundfile.read(path, dtype="float32")
    audio[RATE] = np.nan
    soundfile.write(path, audio, rate, "FLOAT")


def garbled(path):
    audio, rate = soundfile.read(path)
    path.unlink()
    path = path.with_suffix(".flac")
    soundfile.write(path, audio, rate, "PCM_16")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1000] = bytes(1000)
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [not_a_number, garbled])
def test_songs_that_fail_in_their_middle_are_problems_like_others(tmp_path, spoil):
    folder = write_songs(tmp_path / "songs")
    spoil(folder / "train" / "song 1" / "bass.wav")
    (folder / "train" / "song 2" / "mixture.wav").unlink()  # a warning
    options, told = folder_options(folder), []
    with pytest.raises(DatasetError, match=r"1 of 3 songs .*'song 1'.*bass.*allow-partial") as e:
        stream(options, tell=told.extend)
    assert {problem.track for problem in e.value.problems} == {"song 1", "song 2"}
    assert told == []
    batches = stream(options, allow_partial=True, tell=told.extend)
    assert len(batches.source.library.songs) == 2
    assert {problem.track: problem.severity for problem in told} == {
        "song 1": "error",
        "song 2": "warning",
    }
    for name in ("song 0", "song 2"):
        spoil(folder / "train" / name / "bass.wav")
    with pytest.raises(DatasetError, match=r"3 of 3 songs .* No song is left"):
        stream(options, allow_partial=True)


def test_folders_may_have_some_of_the_stems(tmp_path):
    whole = write_songs(tmp_path / "whole", songs=1)
    singers = write_songs(tmp_path / "singers", songs=2, stems=("vocals",))
    folders = [{"path": str(whole)}, {"path": str(singers), "stems": ["vocals"], "kind": "folder"}]
    options = folder_options(whole, folders=folders)
    library = folder_library(options, plan_of(stems=STEMS, channels=2))
    assert [sorted(song) for song in library.songs] == [sorted(STEMS), ["vocals"], ["vocals"]]
    folders[1]["stems"] = ["vocal"]
    with pytest.raises(ConfigError, match=r"no stem 'vocal' to take from .*Did you mean 'vocals'"):
        stream(folder_options(whole, folders=folders))
    del folders[1]["stems"]
    with pytest.raises(ConfigError, match=r"No song in '.*singers' has a stem 'drums'"):
        stream(folder_options(whole, folders=folders))


# --- songs to validate on


def validation_of(folder, **changes):
    validation = {"folder": {"path": str(folder), "split": "train"}, **changes.pop("options", {})}
    usual = {"sample_rate": RATE, "stems": ["drums", "vocals"], "validation": validation}
    told = []
    return validation_tracks(resolve({**TINY, **usual, **changes}, "x"), told.extend), told


def test_a_song_that_would_end_a_validation_is_refused_before_the_run(tmp_path):
    folder = write_songs(tmp_path / "songs")
    not_a_number(folder / "train" / "song 1" / "vocals.wav")
    with pytest.raises(DatasetError, match=r"1 of 3 songs .*'song 1'.* NaN .*allow-partial"):
        validation_of(folder)
    tracks, told = validation_of(folder, allow_partial=True)
    assert [track.name for track in tracks] == ["song 0", "song 2"]
    assert [problem.track for problem in told] == ["song 1"]
    tracks, _ = validation_of(folder, options={"tracks": 1})
    assert [track.name for track in tracks] == ["song 0"]


@pytest.mark.parametrize("change", [{"sample_rate": 2 * RATE}, {"channels": 1}])
def test_songs_to_validate_on_are_like_the_network(tmp_path, change):
    folder = write_songs(tmp_path / "songs", songs=1)
    with pytest.raises(ConfigError, match=r"'song 0' has 1000 Hz and 2 channel.*the network"):
        validation_of(folder, **change)


# --- songs made on the fly


def fake_song(seed, duration, palette):
    frames = round(duration * 44100)
    return {stem: marked(seed % 1000, frames, channels=2) for stem in STEMS}


def synthetic(plan, **changes):
    songs = Synthetic(**{"duration": 8.0, "pool": 2, "batches_per_song": 3, **changes})
    return SyntheticSongs(songs, Activity(quantile=0.0, share=0.0), plan)


def test_the_pool_changes_song_by_song(monkeypatch):
    rendered = []
    monkeypatch.setattr(
        sources, "render_song", lambda *given: rendered.append(given[0]) or fake_song(*given)
    )
    source = synthetic(plan_of(stems=STEMS, sample_rate=44100))
    batches = [source[position] for position in range(7)]
    assert len(rendered) == len(set(rendered)) == 2 + 2  # a pool, then one after every 3 batches
    later = synthetic(plan_of(stems=STEMS, sample_rate=44100))
    assert torch.equal(later[5], batches[5])
    assert all(0 <= seed < 1_000_000 for seed in rendered)


def test_lanes_and_processes_have_songs_of_their_own(monkeypatch):
    monkeypatch.setattr(sources, "render_song", fake_song)
    pools = []
    for rank in (0, 1):
        source = synthetic(plan_of(stems=STEMS, sample_rate=44100, rank=rank, lanes=2))
        for position in (0, 1):
            source[position]
            pools.append(set(source._pool))
    assert len(set.union(*pools)) == 4 * 2


def test_synthetic_songs_are_resampled_and_mixed_down(monkeypatch):
    monkeypatch.setattr(sources, "render_song", fake_song)
    batch = synthetic(plan_of(stems=("vocals",), sample_rate=8000, samples=1000))[0]
    assert batch.shape == (3, 1, 1, 1000)
    assert float(batch.std(-1).max()) < 1.0


def test_stems_that_rest_in_the_pool_are_silent(monkeypatch):
    def song(seed, duration, palette):
        stems = fake_song(seed, duration, palette)
        return {**stems, "vocals": np.zeros_like(stems["vocals"])}

    monkeypatch.setattr(sources, "render_song", song)
    batch = synthetic(plan_of(stems=("vocals", "bass"), sample_rate=44100))[0]
    assert not batch[:, 0].any()
    assert batch[:, 1].all()


def test_synthetic_songs_can_be_trained_on():
    data = {"synthetic": {"duration": 2.0, "pool": 1}, "segment": 0.5, "batch": 2}
    batch = next(iter(stream(DataOptions.model_validate(data), sample_rate=44100)))
    assert batch.shape == (2, 4, 2, 22050)
    assert float(batch.abs().max()) <= 0.981
    assert batch.any()


def test_synthetic_songs_have_four_stems():
    data = {"synthetic": {}}
    with pytest.raises(ConfigError, match=r"no stem 'drum'. Did you mean 'drums'"):
        stream(DataOptions.model_validate(data), stems=("drum",))


# --- options


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "exactly one of 'folders', 'synthetic', 'studio' and 'bank'"),
        ({"synthetic": {}, "bank": {"path": "x"}}, "exactly one of"),
        ({"synthetic": {}, "segmnet": 3.0}, "Did you mean 'segment'"),
        ({"folders": [{"path": "x", "wieght": 1.0}]}, "Did you mean 'weight'"),
        ({"synthetic": {}, "batch": 0}, "greater than 0"),
        ({"synthetic": {}, "coherent": 1.5}, "less than or equal to 1"),
    ],
)
def test_mistakes_are_named(data, message):
    with pytest.raises(ConfigError, match=message):
        validate(DataOptions, data, "recipe.yaml")


def test_segments_are_stretched_for_augmentations():
    data = {"synthetic": {"duration": 2.0, "pool": 1}, "segment": 0.1, "batch": 1}
    options = DataOptions.model_validate(data)
    batch = next(iter(stream(options, sample_rate=44100, stretch=1.12)))
    assert batch.shape[-1] == math.ceil(4410 * 1.12)


def test_songs_that_come_later_are_found(tmp_path):
    folder = write_songs(tmp_path / "songs", songs=1)
    options = folder_options(folder, rescan=3)
    source = stream(options).source
    first = source[0]
    (folder / "train" / "half").mkdir()  # a song in the making
    (folder / "train" / "half" / "drums.wav").touch()
    shutil.copytree(
        write_songs(tmp_path / "more", songs=2) / "train", folder / "train", dirs_exist_ok=True
    )
    assert torch.equal(source[0], first)
    assert len(source.songs.library.songs) == 1
    assert source[3].shape == first.shape
    assert len(source.songs.library.songs) == 2
    assert not torch.equal(source[4], source[3])


def test_only_folders_can_be_searched_again():
    with pytest.raises(ConfigError, match="'rescan' looks for new songs in 'folders'"):
        validate(DataOptions, {"synthetic": {}, "rescan": 3}, "x")
