"""Files that decoders get wrong, that contradict themselves, or whose headers only estimate."""

import errno
import io
import struct
from pathlib import Path

import av
import mutagen.id3
import mutagen.mp4
import numpy as np
import pytest
import soundfile
from conftest import lag, make_signal, read_all
from test_audio_reader import mux

from separator.audio.reader import open_audio, probe
from separator.errors import AudioError

RATE = 44100


class Pipe:
    """What can be written to, but not sought in."""

    def __init__(self, path: Path):
        self._file = path.open("wb")

    def write(self, data: bytes) -> int:
        return self._file.write(data)


def whole(path: Path, **options) -> np.ndarray:
    """Read a file about which there is nothing to say."""
    with open_audio(path, **options) as reader:
        audio = np.concatenate(list(reader), axis=1)
    assert reader.truncation is None
    assert reader.notes == ()
    return audio


def wav(
    signal: np.ndarray,
    container: int,
    bits: int,
    *,
    order: str = "<",
    extensible: bool = True,
    size: int | None = None,
    front: bytes = b"",
) -> bytes:
    """Return WAV of integers whose upper `bits` are used, in containers of `container` bytes."""
    steps = np.rint(signal.T.astype(np.float64) * 2 ** (bits - 1)).astype(np.int64)
    steps <<= 8 * container - bits
    width = np.array(steps, f"{order}i8").tobytes()
    cells = np.frombuffer(width, np.uint8).reshape(-1, 8)
    data = (cells[:, :container] if order == "<" else cells[:, 8 - container :]).tobytes()
    channels = len(signal)
    frame = channels * container
    tag = 0xFFFE if extensible else 1
    stated = 8 * container if extensible else bits
    fmt = struct.pack(f"{order}HHIIHH", tag, channels, RATE, RATE * frame, frame, stated)
    if extensible:
        guid = bytes.fromhex("000000001000800000aa00389b71")
        guid = guid if order == "<" else bytes.fromhex("000000000010800000aa00389b71")
        fmt += struct.pack(f"{order}HHIH", 22, bits, (1 << channels) - 1, 1) + guid
    body = b"WAVEfmt " + struct.pack(f"{order}I", len(fmt)) + fmt
    body += b"data" + struct.pack(f"{order}I", len(data) if size is None else size) + data
    magic = b"RIFF" if order == "<" else b"RIFX"
    return front + magic + struct.pack(f"{order}I", len(body)) + body


@pytest.mark.parametrize(
    ("container", "bits", "depth"),
    [(2, 12, 16), (3, 16, 16), (4, 16, 16), (3, 20, 24), (4, 20, 24), (4, 24, 24), (4, 32, 32)],
)
def test_samples_smaller_than_their_containers(tmp_path, container, bits, depth):
    signal = make_signal(5000)
    path = tmp_path / "s.wav"
    path.write_bytes(wav(signal, container, bits))
    assert np.abs(whole(path) - signal).max() <= 2.0**-bits + 2**-24
    info = probe(path)
    assert (info.samples, info.bit_depth, info.channels) == (5000, depth, 2)
    np.testing.assert_array_equal(whole(path, start=0.05, duration=0.02), whole(path)[:, 2205:3087])


def test_a_plain_header_that_contradicts_itself(tmp_path):
    """There, only 24 bits in 4 bytes have a meaning that programs agree about."""
    path = tmp_path / "s.wav"
    for container, bits in ((3, 16), (4, 16), (4, 20)):
        path.write_bytes(wav(make_signal(5000), container, bits, extensible=False))
        with pytest.raises(AudioError, match=f"a sample has {bits} bits, .* {2 * container} bytes"):
            open_audio(path)
    path.write_bytes(wav(make_signal(5000), 4, 24, extensible=False))
    assert np.abs(whole(path) - make_signal(5000)).max() <= 2**-23


@pytest.mark.parametrize(("container", "bits"), [(2, 16), (3, 24), (4, 32)])
def test_big_endian_wav(tmp_path, container, bits):
    signal = make_signal(5000)
    path = tmp_path / "s.wav"
    path.write_bytes(wav(signal, container, bits, order=">", extensible=False))
    assert np.abs(whole(path) - signal).max() <= 2.0**-bits + 2**-24


def id3(size: int) -> bytes:
    return b"ID3\x04\0\0" + bytes(size >> 7 * i & 0x7F for i in (3, 2, 1, 0)) + bytes(size)


@pytest.mark.parametrize("front", [id3(123), id3(3000) + id3(77)])
def test_a_wav_behind_id3_tags(tmp_path, front):
    signal = make_signal(11025)
    path = tmp_path / "s.wav"
    path.write_bytes(wav(signal, 2, 16, extensible=False, front=front))
    assert probe(path).samples == 11025
    assert np.abs(whole(path) - signal).max() <= 2**-16


def test_the_layout_of_an_odd_wav(tmp_path):
    path = tmp_path / "s.wav"
    path.write_bytes(wav(make_signal(100, channels=6), 4, 24))
    assert probe(path).layout == ("FL", "FR", "FC", "LFE", "BL", "BR")


@pytest.mark.parametrize(
    "size",
    [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF - 44, 0x7FFFFFFF - 36],
)
def test_sizes_that_a_pipe_could_not_know(tmp_path, size):
    signal = make_signal(11025)
    path = tmp_path / "s.wav"
    path.write_bytes(wav(signal, 2, 16, size=size, extensible=False))
    assert probe(path).samples is None
    assert np.abs(whole(path) - signal).max() <= 2**-16


def test_a_size_that_could_be_known_is_believed(tmp_path):
    path = tmp_path / "s.wav"
    path.write_bytes(wav(make_signal(1000), 2, 16, size=2_000_000_000, extensible=False))
    with open_audio(path) as reader:
        list(reader)
    assert reader.truncation is not None
    assert reader.truncation.expected == 500_000_000


@pytest.mark.parametrize(
    ("format", "codec"),
    [
        ("wav", "pcm_s16le"),
        ("w64", "pcm_s16le"),
        ("aiff", "pcm_s16be"),
        ("caf", "pcm_s16be"),
        ("au", "pcm_s16be"),
        ("flac", "flac"),
        ("wv", "wavpack"),
        ("tta", "tta"),
    ],
)
def test_lossless_files_from_a_pipe_are_whole(tmp_path, format, codec):
    signal = make_signal(3 * RATE + 77)
    path = tmp_path / f"s.{format}"
    encode(Pipe(path), format, codec, signal)
    assert np.abs(whole(path) - signal).max() <= (2**-7 if format in ("wv", "tta") else 2**-15)


def encode(file, format: str, codec: str, signal: np.ndarray, rate: int = RATE, **options: str):
    """Write a signal by FFmpeg in the codec's first kind of samples."""
    layout = {1: "mono", 2: "stereo"}[len(signal)]
    with av.open(file, "w", format=format, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.options = {"strict": "-2"}
        stream.bit_rate = 128_000
        kind = stream.codec_context.codec.audio_formats[0].name
        stream.format = kind
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(signal.T).reshape(1, -1), "flt", layout
        )
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        for ready in av.AudioResampler(format=kind, layout=layout, rate=rate).resample(frame):
            fifo.write(ready)
        while (piece := fifo.read(stream.codec_context.frame_size or 4096, True)) is not None:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def vorbis(path: Path, signal: np.ndarray, rate: int = RATE) -> bytes:
    with soundfile.SoundFile(path, "w", rate, len(signal), "VORBIS", format="OGG") as file:
        for begin in range(0, signal.shape[1], 4096):
            file.write(signal[:, begin : begin + 4096].T)
    return path.read_bytes()


@pytest.mark.parametrize("length", [0.1, 2.0])
def test_all_links_of_chained_vorbis(tmp_path, length):
    samples = round(length * RATE)
    parts = [make_signal(samples), make_signal(3 * RATE)[:, ::-1], make_signal(777)]
    data = b"".join(vorbis(tmp_path / f"{i}.ogg", part) for i, part in enumerate(parts))
    path = tmp_path / "chain.ogg"
    path.write_bytes(data)
    decoded = whole(path)
    assert decoded.shape == (2, samples + 3 * RATE + 777)
    second = decoded[:, samples : samples + 3 * RATE]
    np.testing.assert_array_equal(second, read_all(tmp_path / "1.ogg"))
    np.testing.assert_array_equal(whole(path, start=3), decoded[:, 3 * RATE :])


def test_links_of_other_rates_and_channels_become_what_the_first_is(tmp_path):
    mono = make_signal(24000, 24000, channels=1)
    path = tmp_path / "chain.ogg"
    path.write_bytes(
        vorbis(tmp_path / "a.ogg", make_signal(RATE)) + vorbis(tmp_path / "b.ogg", mono, 24000)
    )
    with open_audio(path) as reader:
        decoded = np.concatenate(list(reader), axis=1)
    assert decoded.shape == (2, 2 * RATE)
    assert reader.notes == (
        "The file changes from 44100 Hz and 2 channels to 24000 Hz and 1 channels on the way; it "
        "was converted to what it begins with.",
    )
    time = np.arange(RATE) / RATE
    expected = 0.4 * np.sin(2 * np.pi * (90 * time + 1500 * time**2))
    np.testing.assert_array_equal(decoded[0, RATE:], decoded[1, RATE:])
    assert np.std(decoded[0, RATE:] - expected) < 0.02


def test_vorbis_that_was_cut_at_its_start(tmp_path):
    noise = make_signal(6 * RATE) + np.random.default_rng(0).normal(0, 0.1, (2, 6 * RATE))
    data = vorbis(tmp_path / "s.ogg", noise.astype(np.float32))
    marks = [i for i in range(len(data)) if data[i : i + 4] == b"OggS"]
    original = read_all(tmp_path / "s.ogg")
    path = tmp_path / "cut.ogg"
    path.write_bytes(data[: marks[2]] + data[marks[7] :])
    decoded = whole(path)
    assert 4 * RATE < decoded.shape[1] < 5 * RATE
    np.testing.assert_allclose(
        decoded[:, 2000:], original[:, -decoded.shape[1] + 2000 :], atol=1e-6
    )


@pytest.mark.parametrize("rate", [44100, 48000])
def test_apples_note_in_an_mp3_is_of_another_file(song, rate):
    path = song("s.mp3", make_signal(3 * rate, rate), rate)
    tags = mutagen.id3.ID3()
    note = " 00000000 00000840 000001CA 0000000000010000" + " 00000000" * 8
    tags.add(mutagen.id3.TXXX(encoding=3, desc="iTunSMPB", text=[note]))
    tags.save(path)
    assert whole(path).shape == (2, 3 * rate)


def test_apples_note_in_an_m4a_that_it_does_not_fit(song):
    path = song("s.m4a", make_signal(3 * RATE))
    file = mutagen.mp4.MP4(path)
    note = b" 00000000 00000400 000001CA 0000000000010000" + b" 00000000" * 8
    file["----:com.apple.iTunes:iTunSMPB"] = [mutagen.mp4.MP4FreeForm(note)]
    file.save()
    assert whole(path).shape == (2, 3 * RATE)


@pytest.mark.parametrize(
    ("format", "codec"),
    [
        ("wav", "adpcm_ms"),
        ("wav", "adpcm_ima_wav"),
        ("aiff", "adpcm_ima_qt"),
        ("wav", "wmav2"),
        ("wav", "libmp3lame"),
        ("asf", "wmav2"),
        ("avi", "libmp3lame"),
        ("mp3", "libmp3lame"),
        ("adts", "aac"),
        ("matroska", "libopus"),
        ("mpegts", "mp2"),
        ("ogg", "flac"),
        ("ogg", "libopus"),
        ("flac", "flac"),
        ("wv", "wavpack"),
        ("tta", "tta"),
        ("caf", "alac"),
        ("ipod", "alac"),
        ("mov", "pcm_s16le"),
        ("au", "pcm_s16be"),
        ("caf", "pcm_s16be"),
        ("w64", "pcm_s16le"),
    ],
)
def test_a_start_is_where_decoding_from_the_beginning_gets_to(tmp_path, format, codec):
    rate = 48000 if codec == "libopus" else RATE
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 12 * rate)).astype(np.float32)
    path = tmp_path / "s"
    encode(str(path), format, codec, make_signal(12 * rate, rate) + noise, rate)
    everything = read_all(path)
    for start in (7.3, 9.111):
        part = read_all(path, start=start, duration=0.5)
        expected = everything[:, round(start * rate) :][:, : part.shape[1]]
        np.testing.assert_allclose(part, expected, atol=1e-6)


def test_adpcm_ends_where_its_header_says(tmp_path):
    signal = make_signal(3 * 8000 + 77, 8000)
    path = tmp_path / "s.wav"
    encode(str(path), "wav", "adpcm_ima_wav", signal, 8000)
    data = bytearray(path.read_bytes())
    at = data.index(b"fact") + 8
    padded = struct.unpack_from("<I", data, at)[0]
    assert whole(path).shape[1] == padded > signal.shape[1]
    struct.pack_into("<I", data, at, signal.shape[1])
    path.write_bytes(data)
    assert whole(path).shape[1] == signal.shape[1]
    struct.pack_into("<I", data, at, 10**6)  # more than there are blocks: a lie
    path.write_bytes(data)
    assert whole(path).shape[1] == padded


def test_estimated_lengths_prove_nothing(tmp_path):
    loud, quiet = make_signal(2 * RATE), make_signal(8 * RATE) * 0
    for begin, end, name in ((loud, quiet, "short"), (quiet, loud, "long")):
        path = tmp_path / f"{name}.mp3"
        both = np.concatenate([begin, end], axis=1).astype(np.float32)
        with soundfile.SoundFile(
            path, "w", RATE, 2, "MPEG_LAYER_III", format="MP3", bitrate_mode="VARIABLE"
        ) as file:
            file.write(both.T)
        data = path.read_bytes()
        at = max(data.find(b"Xing"), data.find(b"Info"))
        frame = data.rindex(b"\xff", 0, at)
        path.write_bytes(data[data.index(b"\xff\xfb", frame + 4) :])  # without the header frame
        assert probe(path).samples is None
        assert whole(path).shape[1] == pytest.approx(10 * RATE, abs=4000)
    encode(str(tmp_path / "s.aac"), "adts", "aac", np.concatenate([loud, quiet], axis=1))
    encode(str(tmp_path / "s.caf"), "caf", "alac", loud[:1])
    assert whole(tmp_path / "s.aac").shape[1] == pytest.approx(10 * RATE, abs=4000)
    assert whole(tmp_path / "s.caf").shape[1] == 2 * RATE


def test_a_film_longer_than_its_sound_is_whole(tmp_path):
    path = tmp_path / "s.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        steps = np.rint(make_signal(RATE).T * 2**15).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(steps, "s16", "stereo")
        frame.sample_rate = RATE
        container.mux(audio.encode(frame) + audio.encode(None))
        for _ in range(100):
            container.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(video.encode(None))
    assert whole(path).shape == (2, RATE)


def test_joined_mp3s_of_other_formats(tmp_path):
    stereo, mono = make_signal(RATE), make_signal(2 * 22050, 22050, channels=1)
    data = mux(tmp_path / "a.mp3", "libmp3lame", [stereo]).read_bytes()
    encode(str(tmp_path / "b.mp3"), "mp3", "libmp3lame", mono, 22050)
    path = tmp_path / "s.mp3"
    path.write_bytes(data + (tmp_path / "b.mp3").read_bytes())
    with open_audio(path) as reader:
        decoded = np.concatenate(list(reader), axis=1)
    assert (reader.sample_rate, reader.channels) == (RATE, 2)
    assert "to 22050 Hz and 1 channels on the way" in reader.notes[0]
    assert reader.truncation is None
    assert decoded.shape[1] == pytest.approx(3 * RATE, abs=6000)
    assert lag(decoded[:, :RATE], stereo) == 0
    assert np.std(decoded[:, -RATE:]) == pytest.approx(np.std(mono), rel=0.1)


def test_64_bit_integers(tmp_path):
    signal = make_signal(5000)
    path = tmp_path / "s.wav"
    path.write_bytes(wav(signal, 8, 32, extensible=False).replace(*map(widened, (32, 64)), 1))
    assert np.abs(whole(path) - signal).max() <= 2**-23
    assert probe(path).bit_depth == 32


def widened(bits: int) -> bytes:
    return struct.pack("<HH", 16, bits)


def test_the_first_track_that_can_be_decoded(tmp_path):
    path = mux(tmp_path / "s.mka", "pcm_s16le", [make_signal(RATE), make_signal(RATE) / 2])
    data = path.read_bytes()
    path.write_bytes(data.replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT", 1))
    assert np.abs(whole(path) - make_signal(RATE) / 2).max() < 2**-14
    assert np.abs(whole(path, stream=1) - make_signal(RATE) / 2).max() < 2**-14
    with pytest.raises(AudioError, match="unknown kind"):
        open_audio(path, stream=0)


@pytest.mark.parametrize("rate", [1, 100, 999])
def test_rates_without_music_are_refused(tmp_path, rate):
    soundfile.write(tmp_path / "s.wav", np.zeros((4000, 2)), rate)
    with pytest.raises(AudioError, match=f"has {rate} samples per second; allowed: 1000 to"):
        open_audio(tmp_path / "s.wav")


class BadDisk(io.FileIO):
    """A file that can't be read beyond its first bytes."""

    good = 0

    def readinto(self, buffer):
        if self.tell() >= self.good:
            raise OSError(errno.EIO, "Input/output error")
        return super().readinto(memoryview(buffer)[: self.good - self.tell()])


@pytest.mark.parametrize("good", [0, 20_000])
@pytest.mark.parametrize("name", ["s.wav", "s.mp3", "s.ogg", "s.flac"])
def test_a_failing_disk_is_an_audio_error(song, monkeypatch, capfd, name, good):
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 5 * RATE)).astype(np.float32)
    path = song(name, noise)
    monkeypatch.setattr(BadDisk, "good", good)
    monkeypatch.setattr("separator.audio.sources.io.FileIO", BadDisk)
    with pytest.raises(AudioError, match="can't be read: input/output error"):
        read_all(path)
    assert capfd.readouterr() == ("", "")
