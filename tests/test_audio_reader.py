import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import mutagen.apev2
import mutagen.mp4
import numpy as np
import pytest
import soundfile
from conftest import lag, make_signal, read_all

from separator.audio.headers import read_wave
from separator.audio.layout import channel_pairs
from separator.audio.reader import open_audio, probe
from separator.errors import AudioError

RATE = 44100


def mux(path: Path, codec: str, signals: list[np.ndarray], rate: int = RATE, **options: str):
    """Write one stream for each signal by FFmpeg, in containers that our writer doesn't make."""
    with av.open(str(path), "w", options=options) as container:
        streams = [container.add_stream(codec, rate=rate, layout="stereo") for _ in signals]
        packets = []
        for stream, signal in zip(streams, signals, strict=True):
            stream.bit_rate = 256000
            frame = av.AudioFrame.from_ndarray(signal.T.reshape(1, -1), "flt", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            packets += stream.encode(frame) + stream.encode(None)
        container.mux(packets)
    return path


@pytest.mark.parametrize(
    ("subtype", "container", "depth", "step"),
    [
        ("PCM_U8", "WAV", 16, 2**-8),
        ("PCM_16", "WAV", 16, 2**-16),
        ("PCM_24", "WAV", 24, 2**-24),
        ("PCM_32", "WAV", 32, 2**-24),
        ("FLOAT", "WAV", 32, 0),
        ("DOUBLE", "WAV", 32, 0),
        ("PCM_24", "WAVEX", 24, 2**-24),
        ("FLOAT", "RF64", 32, 0),
        ("PCM_16", "RF64", 16, 2**-16),
        ("PCM_24", "AIFF", 24, 2**-24),
        ("PCM_16", "CAF", 16, 2**-16),
        ("PCM_24", "W64", 24, 2**-24),
        ("PCM_16", "AU", 16, 2**-16),
        ("PCM_24", "FLAC", 24, 2**-24),
    ],
)
def test_lossless_formats_are_read_to_half_a_step(tmp_path, subtype, container, depth, step):
    signal = make_signal(5000)
    path = tmp_path / "song"
    # 0x7FFF is libsndfile's scale for floats; integers leave no doubt
    if step:
        steps = np.rint(signal.astype(np.float64) * 2**31).astype(np.int64)
        soundfile.write(path, steps.astype(np.int32).T, RATE, subtype, format=container)
    else:
        soundfile.write(path, signal.T, RATE, subtype, format=container)
    info = probe(path)
    assert (info.sample_rate, info.channels, info.samples) == (RATE, 2, 5000)
    assert info.bit_depth == depth
    assert info.is_float == (step == 0)
    # libsndfile cuts the lower bits off when it narrows integers, so up to one step is missing
    assert np.abs(read_all(path) - signal).max() <= 2 * step


@pytest.mark.parametrize("rate", [8000, 192000])
@pytest.mark.parametrize("channels", range(1, 9))
def test_any_rate_and_number_of_channels(tmp_path, rate, channels):
    signal = make_signal(3001, rate, channels)
    soundfile.write(tmp_path / "song.wav", signal.T, rate, "FLOAT", format="WAVEX")
    np.testing.assert_array_equal(read_all(tmp_path / "song.wav"), signal)
    assert probe(tmp_path / "song.wav").channels == channels


def test_blocks_have_the_size_asked_for(song):
    path = song("song.wav", make_signal(10_007), bit_depth=32)
    with open_audio(path) as reader:
        blocks = list(reader.blocks(1000))
    assert [block.shape for block in blocks] == [(2, 1000)] * 10 + [(2, 7)]
    assert all(block.flags.c_contiguous and block.dtype == np.float32 for block in blocks)
    assert reader.samples_read == reader.samples == 10_007
    assert reader.truncation is None


@pytest.mark.parametrize("name", ["s.wav", "s.flac", "s.mp3", "s.ogg", "s.opus"])
@pytest.mark.parametrize("start", [0.3, 2.25, 3.7])
def test_start_and_duration_are_exact(song, name, start):
    path = song(name, make_signal(4 * 48000, 48000), rate=48000)
    whole = read_all(path)
    first = round(start * 48000)
    part = read_all(path, start=start, duration=0.2)
    np.testing.assert_array_equal(part, whole[:, first : first + 9600])
    with open_audio(path, start=start) as reader:
        assert reader.samples == 4 * 48000 - first


def test_m4a_seeks_to_the_sample(song):
    path = song("s.m4a", make_signal(4 * RATE))
    whole = read_all(path)[:, round(2.5 * RATE) :]
    part = read_all(path, start=2.5)
    assert part.shape == whole.shape
    assert lag(part, whole) == 0  # AAC's noise differs from run to run, the music doesn't


def test_a_start_behind_the_end_is_refused(song):
    with (
        open_audio(song("s.wav"), start=5) as reader,
        pytest.raises(AudioError, match=r"after 5.0"),
    ):
        list(reader)


@pytest.mark.parametrize(("start", "duration"), [(-1, None), (float("nan"), None), (0, 0)])
def test_senseless_times_are_refused(song, start, duration):
    with pytest.raises(AudioError, match="allowed"):
        open_audio(song("s.wav"), start=start, duration=duration)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "exact"),
    [
        ("s.mp4", "aac", 44100, True),
        ("s.mov", "aac", 48000, True),
        ("s.webm", "libopus", 48000, True),
        ("s.mka", "libmp3lame", 44100, False),
        ("s.aac", "aac", 44100, False),
        ("s.wma", "wmav2", 44100, False),
    ],
)
def test_containers_that_only_ffmpeg_reads(tmp_path, name, codec, rate, exact):
    signal = make_signal(2 * rate, rate)
    path = mux(tmp_path / name, codec, [signal], rate, movie_timescale=str(rate))
    decoded = read_all(path)
    if exact:
        assert decoded.shape == signal.shape
        assert lag(decoded, signal) == 0
    else:  # these containers don't say how much silence the encoder added
        assert abs(decoded.shape[1] - signal.shape[1]) < 4096


def test_every_stream_of_a_stem_file(tmp_path):
    signals = [make_signal(RATE) * gain for gain in (1, 0.8, 0.6, 0.4, 0.2)]
    path = mux(tmp_path / "song.stem.mp4", "aac", signals, movie_timescale=str(RATE))
    assert probe(path).streams == 5
    for index, signal in enumerate(signals):
        decoded = read_all(path, stream=index)
        assert decoded.shape == signal.shape
        assert decoded.std() == pytest.approx(signal.std(), rel=0.01)
    with pytest.raises(AudioError, match="no audio stream 5; it has 5"):
        open_audio(path, stream=5)


def test_the_gapless_note_of_itunes_is_honoured(song):
    path = song("s.m4a", make_signal(3 * RATE))
    file = mutagen.mp4.MP4(path)
    total = -(-(3 * RATE + 1024) // 1024) * 1024  # in frames
    padding = total - 0x400 - 0x10000
    note = b" 00000000 00000400 %08X 0000000000010000 " % padding + b"00000000 " * 8
    file["----:com.apple.iTunes:iTunSMPB"] = [mutagen.mp4.MP4FreeForm(note)]
    file.save()
    assert probe(path).samples == 0x10000
    assert read_all(path).shape == (2, 0x10000)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("s.wav", {"bit_depth": 16}),
        ("s.wav", {"bit_depth": 24}),
        ("s.wav", {"bit_depth": 32}),
        ("s.flac", {"bit_depth": 16}),
        ("s.mp3", {}),
    ],
)
def test_truncated_files_are_read_as_far_as_they_go(song, name, options):
    signal = make_signal(3 * RATE)
    path = song(name, signal, **options)
    whole = read_all(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    with open_audio(path) as reader:
        part = np.concatenate(list(reader), axis=1)
    assert 0.2 * whole.shape[1] < part.shape[1] < 0.5 * whole.shape[1]
    np.testing.assert_array_equal(part[:, :20000], whole[:, :20000])
    assert reader.samples_read == part.shape[1]
    assert reader.truncation is not None
    assert reader.truncation.expected == signal.shape[1]
    assert reader.truncation.decoded == part.shape[1]
    assert f"{part.shape[1] / RATE:.1f} s of 3.0 s" in reader.truncation.message


def test_a_flac_damaged_in_the_middle_loses_only_that_part(song):
    path = song("s.flac", make_signal(3 * RATE), bit_depth=16)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    with open_audio(path) as reader:
        decoded = sum(block.shape[1] for block in reader)
    assert 2 * RATE < decoded < 3 * RATE
    assert reader.truncation is not None
    assert "can be decoded" in reader.truncation.message


@pytest.mark.parametrize("xing", ["0", "1"])
def test_tags_behind_an_mp3_are_no_damage(tmp_path, xing):
    path = mux(tmp_path / "s.mp3", "libmp3lame", [make_signal(RATE)], write_xing=xing)
    before = read_all(path)
    tags = mutagen.apev2.APEv2()
    tags["Artist"] = "Somebody" * 100
    tags.save(path)
    with path.open("ab") as file:
        file.write(b"TAG" + b"Song".ljust(125, b"\0"))
    with open_audio(path) as reader:
        after = np.concatenate(list(reader), axis=1)
    np.testing.assert_array_equal(after, before)
    assert reader.truncation is None


@pytest.mark.parametrize(("container", "subtype"), [("RF64", "PCM_16"), ("AIFF", "PCM_24")])
def test_other_truncated_containers(tmp_path, container, subtype):
    path = tmp_path / "song"
    soundfile.write(path, make_signal(3 * RATE).T, RATE, subtype, format=container)
    path.write_bytes(path.read_bytes()[:200_000])
    with open_audio(path) as reader:
        list(reader)
    assert reader.truncation is not None
    assert reader.truncation.expected == 3 * RATE


def test_one_missing_sample_of_a_wav_is_noticed(song):
    path = song("s.wav", make_signal(1000))
    path.write_bytes(path.read_bytes()[:-4])
    with open_audio(path) as reader:
        list(reader)
    assert reader.truncation is not None
    assert (reader.truncation.expected, reader.truncation.decoded) == (1000, 999)


@pytest.mark.parametrize("name", ["s.ogg", "s.opus"])
def test_a_cut_ogg_is_noticed_by_its_missing_end(song, name):
    path = song(name, make_signal(6 * 48000, 48000), rate=48000)
    path.write_bytes(path.read_bytes()[:-3000])
    with open_audio(path) as reader:
        list(reader)
    assert reader.truncation is not None
    assert reader.truncation.expected is None
    assert "cut off" in reader.truncation.message


def test_a_cut_m4a_with_its_index_in_front(tmp_path):
    options = {"movflags": "faststart", "movie_timescale": str(RATE)}
    path = mux(tmp_path / "s.mp4", "aac", [make_signal(3 * RATE)], **options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with open_audio(path) as reader:
        list(reader)
    assert reader.truncation is not None
    assert reader.truncation.expected == 3 * RATE


def test_an_mp3_without_a_count_of_its_frames_is_not_called_truncated(tmp_path):
    path = mux(tmp_path / "s.mp3", "libmp3lame", [make_signal(RATE)], write_xing="0")
    with open_audio(path) as reader:
        list(reader)
    assert reader.samples is None
    assert reader.truncation is None


def test_a_wav_from_a_pipe_has_no_length_and_is_whole(song):
    path = song("s.wav", make_signal(1000))
    data = bytearray(path.read_bytes())
    data[data.index(b"data") + 4 : data.index(b"data") + 8] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    assert read_wave(path).samples is None
    with open_audio(path) as reader:
        assert np.concatenate(list(reader), axis=1).shape == (2, 1000)
    assert reader.truncation is None


def bad_files(folder: Path) -> dict[str, Path]:
    """Make one file of each kind that can't be read."""
    files = {name: folder / name for name in ("empty.wav", "text.wav", "none.wav", "noise.mp3")}
    files["empty.wav"].write_bytes(b"")
    files["text.wav"].write_text("This is not music.\n" * 100)
    soundfile.write(files["none.wav"], np.zeros((0, 2)), RATE)
    files["noise.mp3"].write_bytes(np.random.default_rng(0).bytes(5000))
    files["cut.ogg"] = folder / "cut.ogg"  # before its number of channels
    files["cut.ogg"].write_bytes(b"OggS" + bytes(24) + b"\x01vorbis" + bytes(1))
    files["missing.wav"] = folder / "missing.wav"
    files["folder"] = folder / "folder.wav"
    files["folder"].mkdir()
    files["loop"] = folder / "loop.wav"
    files["loop"].symlink_to("loop.wav")
    files["picture.mp4"] = folder / "picture.mp4"
    with av.open(str(files["picture.mp4"]), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))
    files["playlist.wav"] = folder / "playlist.wav"
    files["playlist.wav"].write_text("#EXTM3U\n#EXTINF:10,\nother.ts\n#EXT-X-ENDLIST\n")
    return files


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty.wav", "is empty"),
        ("text.wav", "can't be decoded|no audio stream"),
        ("none.wav", "no audio|0 samples"),
        ("noise.mp3", "can't be decoded|no audio"),
        ("cut.ogg", "can't be decoded|no audio"),
        ("missing.wav", "no such file"),
        ("folder", "is a folder"),
        ("loop", "can't be read"),
        ("picture.mp4", "no audio stream"),
        ("playlist.wav", "can't be decoded"),
    ],
)
def test_bad_files_get_one_clear_line(tmp_path, capfd, kind, reason):
    path = bad_files(tmp_path)[kind]
    with pytest.raises(AudioError, match=reason) as caught, open_audio(path) as reader:
        list(reader)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_samples_that_are_no_numbers_are_located(tmp_path, value, word):
    signal = make_signal(3 * RATE)
    signal[1, 66150] = signal[0, 100_000] = value
    soundfile.write(tmp_path / "s.wav", signal.T, RATE, "FLOAT")
    for start in (0, 1):
        with pytest.raises(AudioError, match=rf"{word} at 1\.500 s"):
            read_all(tmp_path / "s.wav", start=start)


def test_one_sample_silence_and_loud_floats(song):
    assert read_all(song("one.wav", np.full((1, 1), 0.5, np.float32))).item() == 0.5
    assert not read_all(song("silence.flac", np.zeros((2, 100), np.float32))).any()
    loud = make_signal(500) * 10
    np.testing.assert_array_equal(read_all(song("loud.wav", loud, bit_depth=32)), loud)


@pytest.mark.parametrize("name", ["Ä [live] #1; 12:30 音楽.mp3", "concat:a|b.wav", "-o.ogg"])
def test_any_name_of_a_file(song, name):
    assert read_all(song(name, make_signal(3000))).shape == (2, 3000)


def write_caf(path: Path, tag: int, signal: np.ndarray) -> Path:
    """Write 16-bit PCM whose speakers are named by one of Core Audio's tags."""
    channels = len(signal)
    data = np.rint(signal.T * 2**15).astype(">i2").tobytes()
    chunks = {
        b"desc": struct.pack(">d4s5I", RATE, b"lpcm", 0, 2 * channels, 1, channels, 16),
        b"chan": struct.pack(">3I", tag << 16 | channels, 0, 0),
        b"data": bytes(4) + data,
    }
    content = b"".join(k + struct.pack(">q", len(v)) + v for k, v in chunks.items())
    path.write_bytes(b"caff" + struct.pack(">HH", 1, 0) + content)
    return path


def test_speakers_in_an_order_of_their_own(tmp_path):
    signal = make_signal(3 * RATE, channels=6)
    film = write_caf(tmp_path / "film.caf", 123, signal)
    code = (
        "import gc, sys, numpy as np\n"
        "from separator.audio.reader import open_audio\n"
        "from separator.audio.writer import AudioWriter\n"
        "for name in ('wav', 'flac', 'm4a'):\n"
        "    with open_audio(sys.argv[1], start=1.25) as reader:\n"
        "        signal = np.concatenate(list(reader), axis=1)\n"
        "    with AudioWriter(f'copy.{name}', 44100, 6, layout=reader.info.layout) as writer:\n"
        "        writer.write(signal)\n"
        "    print(*reader.info.layout)\n"
        "    del reader, writer; gc.collect()\n"
    )
    # a table of speakers that is freed twice would abort the process
    done = subprocess.run(
        [sys.executable, "-c", code, film], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "FL FC FR SL SR LFE\n" * 3, "")
    for name in ("wav", "flac"):
        copy = tmp_path / f"copy.{name}"
        assert probe(copy).layout == ("FL", "FR", "FC", "LFE", "SL", "SR")
        wanted = signal[[0, 2, 1, 5, 3, 4], round(1.25 * RATE) :]
        assert np.abs(read_all(copy) - wanted).max() <= 2**-16
    assert read_all(tmp_path / "copy.m4a").shape == (6, round(1.75 * RATE))


def test_layouts_and_their_pairs(song):
    surround = ("FL", "FR", "FC", "LFE", "SL", "SR")
    for name in ("s.wav", "s.flac"):
        assert probe(song(name, make_signal(100, channels=6), layout=surround)).layout == surround
    assert channel_pairs(1) == [(0,)]
    assert channel_pairs(2) == [(0, 1)]
    assert channel_pairs(6, surround) == [(0, 1), (2,), (3,), (4, 5)]
    assert channel_pairs(8) == [(0, 1), (2,), (3,), (4, 5), (6, 7)]
    for channels in range(1, 13):
        flat = sorted(index for pair in channel_pairs(channels) for index in pair)
        assert flat == list(range(channels))
