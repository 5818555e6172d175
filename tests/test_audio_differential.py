"""Both decoders over a zoo of formats: where they differ, it is known which one is right."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import make_signal, read_all
from test_audio_odd_files import encode, id3, vorbis, wav

from separator.audio.decoders import Decoder
from separator.audio.ffmpeg import FFmpegDecoder
from separator.audio.info import SAMPLE_RATES
from separator.audio.opinion import compare, other_decoder
from separator.audio.reader import open_audio
from separator.audio.sndfile import SndfileDecoder
from separator.audio.writer import AudioWriter
from separator.errors import AudioError

RATE = 44100
SAMPLES = RATE + 77
MUXED = [
    ("wav", "adpcm_ms"),
    ("wav", "adpcm_ima_wav"),
    ("wav", "pcm_mulaw"),
    ("wav", "pcm_alaw"),
    ("wav", "pcm_u8"),
    ("wav", "pcm_f64le"),
    ("aiff", "adpcm_ima_qt"),
    ("aiff", "pcm_s24be"),
    ("caf", "pcm_s16be"),
    ("au", "pcm_s16be"),
    ("w64", "pcm_s24le"),
    ("ircam", "pcm_s16le"),
    ("flac", "flac"),
    ("mp3", "libmp3lame"),
    ("ogg", "libopus"),
]
SUBTYPES = ["PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]


def both(path: Path) -> tuple[Decoder, Decoder]:
    return FFmpegDecoder(path), SndfileDecoder(path)


def agree(path: Path, *, tolerance: int = 0) -> None:
    """Check that both decoders, and the reader, give the same."""
    ffmpeg, sndfile = both(path)
    with closing(ffmpeg), closing(sndfile):
        opinion = compare(ffmpeg, sndfile)
    assert opinion.agrees
    assert abs(opinion.samples - read_all(path).shape[1]) <= tolerance


@pytest.mark.parametrize(("format", "codec"), MUXED)
def test_formats_of_ffmpeg(tmp_path, format, codec):
    path = tmp_path / f"s.{format}"
    encode(str(path), format, codec, make_signal(SAMPLES), 48000 if codec == "libopus" else RATE)
    agree(path)


@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64", "AIFF", "AU", "CAF", "W64", "FLAC"])
def test_formats_of_libsndfile(tmp_path, format, subtype):
    if not soundfile.check_format(format, subtype):
        return
    path = tmp_path / "s"
    soundfile.write(path, make_signal(SAMPLES).T, RATE, subtype, format=format)
    agree(path)
    assert read_all(path).shape == (2, SAMPLES)


@pytest.mark.parametrize("name", ["s.wav", "s.flac", "s.mp3", "s.ogg", "s.opus"])
def test_our_own_formats(song, name):
    rate = 48000 if name == "s.opus" else RATE
    path = song(name, make_signal(2 * rate, rate), rate)
    agree(path)
    assert read_all(path).shape == (2, 2 * rate)


@pytest.mark.parametrize(("container", "bits"), [(3, 16), (4, 16), (4, 24)])
def test_libsndfile_is_right_about_containers(tmp_path, container, bits):
    path = tmp_path / "s.wav"
    path.write_bytes(wav(make_signal(SAMPLES), container, bits))
    ffmpeg, sndfile = both(path)
    with closing(ffmpeg), closing(sndfile):
        opinion = compare(ffmpeg, sndfile)
    assert not opinion.agrees
    assert opinion.samples == SAMPLES
    assert np.abs(read_all(path) - make_signal(SAMPLES)).max() <= 2.0**-bits + 2**-23


def test_neither_is_right_about_chains(tmp_path):
    """FFmpeg gets the seams wrong, libsndfile ends with the first link; ours are exact."""
    link = vorbis(tmp_path / "a.ogg", make_signal(SAMPLES))
    path = tmp_path / "chain.ogg"
    path.write_bytes(link + vorbis(tmp_path / "b.ogg", make_signal(SAMPLES) / 2))
    ffmpeg, sndfile = both(path)
    with closing(ffmpeg), closing(sndfile):
        assert compare(ffmpeg, sndfile).samples == SAMPLES
        ffmpegs = sum(block.shape[1] for block in FFmpegDecoder(path))
    assert ffmpegs != 2 * SAMPLES
    assert read_all(path).shape == (2, 2 * SAMPLES)


def test_neither_is_right_about_tags_in_front(tmp_path):
    """FFmpeg hears an mp3 there, libsndfile loses as many bytes at the end where it is called."""
    path = tmp_path / "s.wav"
    path.write_bytes(wav(make_signal(SAMPLES), 2, 16, extensible=False, front=id3(1000)))
    assert np.abs(read_all(path) - make_signal(SAMPLES)).max() <= 2**-16


class Lying:
    """A decoder whose header counts fewer samples than it gives."""

    def __init__(self, decoder: Decoder, samples: int, signal: np.ndarray):
        self._decoder, self._signal = decoder, signal
        self.info = type(decoder.info)(**{**vars(decoder.info), "samples": samples})
        self.damaged, self.limit, self.notes = 0, None, []

    def seek(self, sample: int) -> int:
        return 0

    def __iter__(self):
        yield self._signal

    def close(self) -> None:
        self._decoder.close()


def lying(monkeypatch, samples: int, signal: np.ndarray) -> None:
    """Let FFmpeg give a signal, and the header count so many samples."""
    monkeypatch.setattr(
        "separator.audio.reader.open_decoder",
        lambda path, stream=None: Lying(FFmpegDecoder(path), samples, signal),
    )
    monkeypatch.setattr(
        "separator.audio.reader.opinion.other_decoder", lambda one, path: SndfileDecoder(path)
    )


def test_more_than_is_declared_and_something_else_is_refused(song, monkeypatch):
    path = song("s.wav", make_signal(1000), bit_depth=32)
    lying(monkeypatch, 1000, make_signal(1500)[::-1])
    with pytest.raises(AudioError, match="counts 1000 samples and gives 1500; two decoders"):
        read_all(path)


def test_more_than_is_declared_is_kept_where_both_give_the_same(song, monkeypatch):
    signal = make_signal(1500)
    path = song("s.wav", signal, bit_depth=32)
    lying(monkeypatch, 1000, signal)
    np.testing.assert_array_equal(read_all(path), signal)


def test_what_one_decoder_misses_at_the_end_comes_from_the_other(song, monkeypatch):
    signal = make_signal(1500)
    path = song("s.wav", signal, bit_depth=32)
    lying(monkeypatch, 1500, signal[:, :1000])
    with open_audio(path) as reader:
        np.testing.assert_array_equal(np.concatenate(list(reader), axis=1), signal)
    assert reader.truncation is None


def test_the_other_decoder_is_of_the_other_library(song, tmp_path):
    path = song("s.wav")
    for one, other in ((FFmpegDecoder, SndfileDecoder), (SndfileDecoder, FFmpegDecoder)):
        with closing(one(path)) as first, closing(other_decoder(first, path)) as second:
            assert isinstance(second, other)
    encode(str(tmp_path / "s.mka"), "matroska", "aac", make_signal(RATE))
    with closing(FFmpegDecoder(tmp_path / "s.mka")) as only:
        assert other_decoder(only, tmp_path / "s.mka") is None


def test_rates_of_music_are_all_read(tmp_path):
    for rate in (SAMPLE_RATES.start, 7350, 352_800, 768_000):
        path = tmp_path / f"{rate}.wav"
        with AudioWriter(path, rate, 1) as writer:
            writer.write(make_signal(500, rate, 1))
        assert read_all(path).shape == (1, 500)
