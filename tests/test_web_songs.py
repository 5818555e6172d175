"""Songs: what is heard and taken away of them, files that differ from them, their end."""

import zipfile
from itertools import pairwise

import numpy as np
import pytest
from conftest import lag, make_signal, read_all

from separator.errors import AudioError
from separator.web.songs import Library, Song, Track

RATE = 44100


def heard(song: Song, start: int, count: int) -> np.ndarray:
    """Return what the player gets of all tracks, `(tracks, channels, count)` at full scale 1."""
    values = np.frombuffer(song.pcm(start, count), "<i2")
    return values.reshape(len(song.tracks), count, song.channels).transpose(0, 2, 1) / 32768


@pytest.mark.parametrize("rate", [44100, 22050, 11025])
def test_opus_is_heard_in_step_at_the_songs_rate(song, rate):
    samples = 4 * rate + 777
    signal = make_signal(samples, rate)
    tracks = tuple(Track("a", song(f"a.{kind}", signal, rate)) for kind in ("wav", "opus"))
    both = Song("token", tracks[0].path.parent, "a", rate, 2, samples, tracks)
    whole = heard(both, 0, samples)
    inside = slice(rate // 10, 3 * rate)  # the chirp ends in what Opus leaves out at low rates
    assert lag(whole[1][:, inside], whole[0][:, inside]) == 0
    assert np.abs(whole[1] - whole[0])[:, inside].max() < 0.05
    cuts = [0, 5, rate, 2 * rate - 1, 3 * rate, samples]
    pieces = [heard(both, a, b - a) for a, b in pairwise(cuts)]
    assert np.abs(np.concatenate(pieces, axis=2) - whole).max() < 1e-3
    streamed = np.concatenate(list(both.blocks(tracks[1])), axis=1)
    assert abs(streamed.shape[1] - samples) <= 1
    assert np.abs(streamed[:, : samples - 50] - whole[1][:, :-50]).max() < 1e-3
    mix = read_all(both.mix({1: 1.0}))
    assert mix.shape == (2, samples)
    assert np.abs(mix - whole[1]).max() < 1e-3


@pytest.mark.parametrize("kind", ["wav", "mp3"])
def test_a_track_shorter_than_its_song_ends_in_silence(song, kind):
    samples, short = 4 * RATE + 6000, 4 * RATE - 2000
    signal = make_signal(samples, RATE)
    tracks = (
        Track("original", song("a.wav", signal)),
        Track("a", song(f"b.{kind}", signal[:, :short]), group="Reference"),
    )
    both = Song("token", tracks[0].path.parent, "a", RATE, 2, samples, tracks)
    both.draw()
    assert both.overviews[0].spectrogram[:-1].any(1).all()
    assert not both.overviews[1].spectrogram[-3:].any()
    for start in (3 * RATE, 4 * RATE, samples - 1000):  # the player asks for pieces of 4 s
        original, reference = heard(both, start, samples - start)
        assert np.abs(original).max() > 0.1
        assert not reference[:, max(0, short + 3000 - start) :].any()
    assert read_all(both.mix({1: 1.0})).shape == (2, samples)


def test_what_is_no_song_is_not_silence(song):
    broken = song("a.wav").with_name("b.wav")
    broken.write_bytes(b"RIFF")
    with pytest.raises(AudioError):
        Song("token", broken.parent, "b", RATE, 2, RATE, (Track("b", broken),)).pcm(0, RATE)


def test_sound_is_a_piece_of_all_tracks(pair):
    values = np.frombuffer(pair.pcm(1000, 500), "<i2").reshape(3, 500, 2)
    for number, name in enumerate(("mixture", "a", "b")):
        truth = read_all(pair.folder / f"{name}.wav")[:, 1000:1500].T
        assert np.abs(values[number] / 32768 - truth).max() <= 0.51 / 32768
    assert len(pair.pcm(RATE - 10, 500)) == 3 * 10 * 2 * 2
    assert pair.pcm(RATE + 5, 500) == b""


def test_the_mix_is_what_is_heard(pair):
    path = pair.mix({1: 0.5, 2: 2.0})
    truth = 0.5 * read_all(pair.folder / "a.wav") + 2 * read_all(pair.folder / "b.wav")
    assert np.abs(read_all(path) - truth).max() < 2**-22
    with pytest.raises(AudioError, match="unmute"):
        pair.mix({1: 0.0})
    with pytest.raises(AudioError):
        pair.mix({9: 1.0})


def test_the_zip_holds_the_stems_under_their_names(pair):
    with zipfile.ZipFile(pair.archive()) as archive:
        assert archive.namelist() == ["A song - a.wav", "A song - b.wav"]
        assert archive.read("A song - a.wav") == (pair.folder / "a.wav").read_bytes()


def test_songs_expire_and_their_files_too(tmp_path):
    library = Library(tmp_path / "songs", keep_seconds=60)
    with library.new_folder() as folder:
        pass
    assert folder.stat().st_mode & 0o077 == 0
    song = library.add(Song(folder.name, folder, "s", RATE, 2, 1, ()))
    library.expire()
    assert library.get(song.token) is song
    song.used -= 61
    library.expire()
    assert not folder.exists()
    with pytest.raises(AudioError, match="no longer"):
        library.get(song.token)
