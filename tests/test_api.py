import threading

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import music, read_all
from test_audio_reader import mux

from separator.api import Separator, load_model
from separator.cli.models import fetch_weights
from separator.errors import AudioError, Cancelled, ConfigError, ModelError
from separator.zoo.search import find_card

STEMS = {"drums", "bass", "other", "vocals"}


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.wav"
    soundfile.write(path, music(2.5).T, 44100, subtype="PCM_24")
    return path


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_stems_and_residual_sum_to_the_mixture(tiny, rate, channels):
    mixture = torch.from_numpy(music(1.3, rate, channels))
    stems = tiny.separate(mixture, rate, residual="rest")
    assert set(stems) == STEMS | {"rest"}
    assert all(stem.shape == mixture.shape for stem in stems.values())
    torch.testing.assert_close(sum(stems.values()), mixture, atol=1e-6, rtol=0)


@pytest.mark.parametrize("samples", [1, 10, 4410])
def test_short_songs_keep_their_length(tiny, samples):
    stems = tiny.separate(music(1)[:, :samples], 44100)
    assert all(stem.shape == (2, samples) for stem in stems.values())


def test_silence_and_loud_input(tiny):
    quiet = tiny.separate(torch.zeros(2, 30000), 44100)
    assert all(torch.isfinite(stem).all() for stem in quiet.values())
    loud = torch.from_numpy(music(0.7)) * 8  # +12 dBFS and more
    stems = tiny.separate(loud, 44100, residual="rest")
    torch.testing.assert_close(sum(stems.values()), loud, atol=1e-5, rtol=0)


def test_same_input_gives_the_same_bytes(tiny_models):
    settings = {"device": "cpu", "shifts": 3, "seed": 4}
    runs = [
        Separator(tiny_models / "tiny.yaml", **settings).separate(music(2), 44100) for _ in range(2)
    ]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in STEMS)


def test_result_does_not_depend_on_the_batch_size(tiny_models, tiny):
    batched = Separator(
        tiny_models / "tiny.yaml", device="cpu", precision="float32", batch_size=3
    ).separate(music(4), 44100)
    for name, stem in tiny.separate(music(4), 44100).items():
        torch.testing.assert_close(batched[name], stem, atol=1e-5, rtol=0)


def test_chosen_stems_equal_those_of_the_whole(tiny):
    every = tiny.separate(music(2), 44100)
    some = tiny.separate(music(2), 44100, stems=["vocals", "bass"], residual="rest")
    assert list(some) == ["vocals", "bass", "rest"]
    torch.testing.assert_close(some["vocals"], every["vocals"])
    torch.testing.assert_close(some["bass"], every["bass"])


def test_stream_equals_the_whole(tiny):
    mixture = music(3)
    blocks = np.array_split(mixture, 17, axis=1)
    pieces = list(tiny.stream(blocks, 44100, samples=mixture.shape[1]))
    for name, stem in tiny.separate(mixture, 44100).items():
        assert torch.equal(torch.cat([piece[name] for piece in pieces], dim=-1), stem)


def test_progress_reaches_the_end_and_cancel_stops(tiny):
    seen = []
    tiny.separate(music(3), 44100, progress=seen.append)
    assert seen[-1].fraction == 1
    assert [progress.done for progress in seen] == list(range(1, seen[-1].total + 1))
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        tiny.separate(music(1), 44100, cancel=cancel)


def test_file_comes_back_with_rate_length_and_depth(tiny, song, tmp_path):
    result = tiny.separate_file(song, tmp_path / "out", residual="rest")
    assert set(result.outputs) == STEMS | {"rest"}
    source = soundfile.info(song)
    total = 0
    for path in result.outputs.values():
        written = soundfile.info(path)
        assert (written.samplerate, written.frames, written.channels) == (44100, source.frames, 2)
        assert written.subtype == "PCM_24"
        total = total + soundfile.read(path)[0]
    assert result.truncated is None
    assert 0 < result.network_seconds < result.seconds
    error = np.abs(total / result.gain - soundfile.read(song)[0]).max()
    assert error <= (len(result.outputs) + 1) / 2 * 2**-23


def test_range_of_a_file(tiny, song, tmp_path):
    result = tiny.separate_file(song, tmp_path, stems=["bass"], start=0.5, duration=1.0)
    assert result.samples == 44100
    assert result.duration == 1.0


def test_float_files_null_exactly(tiny, song, tmp_path):
    result = tiny.separate_file(song, tmp_path, residual="rest", bit_depth=32)
    total = sum(soundfile.read(path)[0] for path in result.outputs.values())
    assert np.abs(total - soundfile.read(song)[0]).max() < 1e-6


def test_nothing_is_overwritten_unless_asked(tiny, song, tmp_path):
    tiny.separate_file(song, tmp_path, stems=["bass"])
    with pytest.raises(AudioError, match="exists"):
        tiny.separate_file(song, tmp_path, stems=["bass"])
    tiny.separate_file(song, tmp_path, stems=["bass"], overwrite=True)


def test_cancelled_file_leaves_nothing(tiny, song, tmp_path):
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        tiny.separate_file(
            song, tmp_path / "out", progress=lambda progress: cancel.set(), cancel=cancel
        )
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_nothing_reads_a_song_after_its_file_was_closed(tiny, tmp_path):
    """FFmpeg crashes the process when one thread closes what another one decodes."""
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(music(4), 10).T, 44100)
    cancel = threading.Event()
    with pytest.raises(Cancelled) as held:  # and with the error, its frames
        tiny.separate_file(path, tmp_path, progress=lambda progress: cancel.set(), cancel=cancel)
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]
    assert held


def test_settings_name_all_that_shapes_the_result(tiny_models):
    separator = Separator(tiny_models / "tiny.yaml", shifts=2, seed=5, augmentations=["swap"])
    wanted = {"shifts": 2, "seed": 5, "augmentations": ["swap"]}
    assert separator.settings.items() >= wanted.items()
    assert {"overlap", "batch_size"} < set(separator.settings)


def test_mistakes_are_named(tiny, tiny_models):
    with pytest.raises(ConfigError, match="Did you mean 'vocals'"):
        tiny.separate(music(1), 44100, stems=["vocal"])
    with pytest.raises(ConfigError, match="name of its own"):
        tiny.separate(music(1), 44100, residual="bass")
    with pytest.raises(AudioError, match="no samples"):
        tiny.separate(np.zeros((2, 0), np.float32), 44100)
    with pytest.raises(AudioError, match="finite"):
        tiny.separate(np.full((2, 5), np.nan, np.float32), 44100)
    with pytest.raises(ConfigError, match="channels, time"):
        tiny.separate(np.zeros(5, np.float32), 44100)
    with pytest.raises(ModelError, match="Unknown model"):
        Separator("no-such-model")
    with pytest.raises(ConfigError, match="overlap"):
        Separator(tiny_models / "tiny.yaml", overlap=1.5)


@pytest.mark.parametrize("rate", [0, -44100, 48000.0, None])
def test_rates_are_whole_numbers_of_hertz(tiny, rate):
    with pytest.raises(ConfigError, match="sample rate is"):
        tiny.separate(music(0.1), rate)
    with pytest.raises(ConfigError, match="sample rate is"):
        tiny.stream([music(0.1)], rate, samples=4410)


def test_arrays_of_any_order_are_understood(tiny):
    song = music(0.2)
    expected = tiny.separate(song, 44100)
    for same in (song[::-1][::-1], np.asfortranarray(song), song.astype(">f4"), song.tolist()):
        for stem, audio in tiny.separate(same, 44100).items():
            assert torch.equal(audio, expected[stem])


@pytest.mark.parametrize("segment", [0.0, -1.0, float("nan"), float("inf")])
def test_segments_are_finite(tiny_models, segment):
    with pytest.raises(ConfigError, match="segment is"):
        Separator(tiny_models / "tiny.yaml", device="cpu", segment=segment)


def test_formats_are_known_by_their_extensions(tiny, song, tmp_path):
    tiny.separate_file(song, tmp_path / "out", audio_format=".FLAC")
    assert {path.name for path in tmp_path.glob("out/song/*")} == {f"{s}.flac" for s in STEMS}
    with pytest.raises(ConfigError, match="Unknown output format 'flc'"):
        tiny.separate_file(song, tmp_path / "out", audio_format="flc")


def test_downloads_are_forbidden_everywhere(tiny_models, tmp_path, monkeypatch):
    """The variable counts wherever nobody says `offline`, in Python and in the commands."""
    card = yaml.safe_load((tiny_models / "tiny.yaml").read_text())
    card["weights"] |= {"urls": ["http://127.0.0.1:9/x.safetensors"]}
    del card["weights"]["file"]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(card))
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEPARATOR_OFFLINE", "1")
    for load in (Separator, load_model, lambda path: fetch_weights(find_card(path))):
        with pytest.raises(ModelError, match="downloads are off"):
            load(str(tmp_path / "tiny.yaml"))


def test_a_track_can_be_chosen(tiny, tmp_path):
    loud, quiet = music(0.5), music(0.5) / 4
    path = mux(tmp_path / "film.mka", "pcm_s16le", [loud, quiet])
    for track, gain in ((None, 1), (1, 0.25)):
        result = tiny.separate_file(
            path, tmp_path / str(track), stems=["vocals"], residual="rest", track=track
        )
        total = sum(read_all(path) for path in result.outputs.values())
        assert np.abs(total - gain * loud).max() < 2**-12
