import os
import resource
import time
import zlib
from contextlib import contextmanager
from io import BytesIO

import av
import mutagen
import mutagen.apev2
import numpy as np
import pytest
import soundfile
from conftest import lag, make_signal, read_all

from separator.audio import ogg
from separator.audio.encoders import to_integers
from separator.audio.formats import check_output, output_format
from separator.audio.reader import probe
from separator.audio.tags import Cover, Tags, read_tags
from separator.audio.writer import AudioWriter
from separator.errors import AudioError, ConfigError
from separator.files import remove_stale, temporary_path

RATE = 44100
LOSSLESS = [("wav", 16), ("wav", 24), ("wav", 32), ("flac", 16), ("flac", 24)]
LOSSY = ["mp3", "ogg", "opus", "m4a"]
EXTENSIONS = ["wav", "flac", *LOSSY]


@contextmanager
def disk_of(size: int):
    """Let files grow to `size` bytes at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("name", "depth"), LOSSLESS)
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (192000, 2), (48000, 8)])
@pytest.mark.parametrize("samples", [1, 4999])
def test_lossless_round_trip(song, name, depth, rate, channels, samples):
    signal = make_signal(samples, rate, channels) + np.float32(0.1)
    path = song(f"s.{name}", signal, rate, bit_depth=depth)
    info = probe(path)
    assert (info.sample_rate, info.channels, info.samples) == (rate, channels, samples)
    assert info.bit_depth == depth
    bound = 0 if depth == 32 else 0.5 / 2 ** (depth - 1)
    assert np.abs(read_all(path) - signal).max() <= bound


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("samples", [1, 100, 1153, 48000, 131072])
def test_lossy_round_trip(song, name, channels, samples):
    signal = make_signal(samples, 48000, channels)
    decoded = read_all(song(f"s.{name}", signal, 48000))
    assert decoded.shape == signal.shape
    if samples >= 48000:
        assert lag(decoded, signal) == 0
        assert decoded.std() == pytest.approx(signal.std(), rel=0.02)
        assert np.std(decoded - signal) < 0.05 * np.std(signal)


@pytest.mark.parametrize("channels", range(3, 9))
@pytest.mark.parametrize("name", ["wav", "flac", "opus", "m4a"])
def test_channels_stay_in_their_places(song, name, channels):
    signal = make_signal(48000, 48000, channels)
    signal[2:] *= 0  # the bass channel of some layouts takes nothing above 120 Hz
    signal[channels - 1] = 0.3 * np.sin(np.arange(48000) * 0.02)
    decoded = read_all(song(f"s.{name}", signal, 48000))
    assert decoded.shape == signal.shape
    assert np.std(decoded - signal, axis=1).max() < 0.01


@pytest.mark.parametrize("name", ["mp3", "ogg", "m4a"])
@pytest.mark.parametrize("rate", [22050, 44100])
def test_lossy_formats_at_other_rates(song, name, rate):
    signal = make_signal(rate + 17, rate)
    decoded = read_all(song(f"s.{name}", signal, rate))
    assert decoded.shape == signal.shape
    assert lag(decoded, signal) == 0


def test_opus_is_resampled_where_it_lacks_the_rate(song):
    path = song("s.opus", make_signal(44100), 44100)
    assert (probe(path).sample_rate, probe(path).samples) == (48000, 48000)
    time = np.arange(48000) / 48000  # make_signal's first channel, at the other rate
    sweep = RATE / 16
    expected = 0.4 * np.sin(2 * np.pi * (90 * time + sweep * time**2))
    assert lag(read_all(path), expected[None].astype(np.float32)) == 0


@pytest.mark.parametrize(("subtype", "depth"), [("PCM_16", 16), ("PCM_24", 24)])
@pytest.mark.parametrize("name", ["wav", "flac"])
def test_integers_come_back_bit_for_bit(tmp_path, song, subtype, depth, name):
    top = 2 ** (depth - 1)
    values = np.random.default_rng(0).integers(-top, top, (4000, 2))
    values[:3] = [[-top, top - 1], [0, 1], [-1, 255]]
    source = tmp_path / "source.wav"
    soundfile.write(source, (values << (32 - depth)).astype(np.int32), RATE, subtype)
    copy = song(f"copy.{name}", read_all(source), bit_depth=depth)
    again, _ = soundfile.read(copy, dtype="int32")
    np.testing.assert_array_equal(again >> (32 - depth), values)
    if depth == 24:
        assert np.any(values & 0xFF)  # the low byte is in use


def test_rounding_is_to_the_nearest_and_clips():
    steps = np.array([[0.4, 0.6, -0.6, 1.5, 2.5, 40000, -40000]], np.float32)
    assert to_integers(steps / 2**15, 16).tolist() == [[0, 1, -1, 2, 2, 32767, -32768]]


@pytest.mark.parametrize("name", LOSSY)
def test_loud_audio_does_not_flip_its_sign(song, name):
    loud = make_signal(48000, 48000) * 4  # 4 dB over full scale
    decoded = read_all(song(f"s.{name}", loud, 48000))
    assert np.abs(np.diff(decoded)).max() < 2 * np.abs(np.diff(loud)).max()
    assert np.all(decoded[np.abs(loud) > 0.9] * loud[np.abs(loud) > 0.9] > 0)


@pytest.mark.parametrize("rate", [22050, 44100])
@pytest.mark.parametrize("bitrate", [64, 128, 160, 192, 200, 224, 256, 320])
def test_mp3_keeps_the_level_at_every_bit_rate(song, rate, bitrate):
    signal = make_signal(rate, rate)
    decoded = read_all(song("s.mp3", signal, rate, bitrate=bitrate))
    level = np.vdot(decoded, signal) / np.vdot(signal, signal)
    assert level == pytest.approx(1, abs=0.003)  # 0.03 dB


def test_a_bit_rate_is_obeyed(song):
    noise = np.random.default_rng(0).standard_normal((2, 2 * RATE)).astype(np.float32) * 0.1
    for name in LOSSY:
        sizes = [
            song(f"{bitrate}.{name}", noise, bitrate=bitrate).stat().st_size
            for bitrate in (96, 192, 320)
        ]
        assert sizes == sorted(sizes)
        assert sizes[2] > 1.5 * sizes[0]


def test_libsndfile_agrees_about_wav_flac_and_mp3(song):
    signal = make_signal(RATE + 5)
    for name in ("wav", "flac", "mp3"):
        decoded, rate = soundfile.read(song(f"s.{name}", signal), dtype="float32")
        assert (decoded.shape, rate) == ((RATE + 5, 2), RATE)
        assert np.std(decoded.T - signal) < 0.01


@pytest.mark.parametrize(
    ("name", "rate", "channels", "depth", "bitrate", "allowed"),
    [
        ("mp3", 96000, 2, None, None, "48000"),
        ("opus", 96000, 2, None, None, "8000 to 48000"),
        ("mp3", 44100, 6, None, None, "1 to 2"),
        ("flac", 44100, 9, 16, None, "1 to 8"),
        ("flac", 44100, 2, 32, None, "16, 24"),
        ("wav", 44100, 2, 20, None, "16, 24, 32"),
        ("mp3", 44100, 2, 16, None, "lossy"),
        ("mp3", 44100, 2, None, 5, "8 to 512"),
        ("flac", 44100, 2, 16, 320, "lossless"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(name, rate, channels, depth, bitrate, allowed):
    with pytest.raises(ConfigError, match=allowed):
        check_output(output_format(name), rate, channels, depth, bitrate)


def test_an_unknown_format_is_named_with_its_neighbour():
    with pytest.raises(ConfigError, match="Did you mean 'flac'"):
        output_format("flak")


@pytest.mark.parametrize("name", EXTENSIONS)
def test_a_full_disk_leaves_nothing_behind(tmp_path, name):
    noise = np.random.default_rng(0).standard_normal((2, 2 * RATE)).astype(np.float32) * 0.1
    path = tmp_path / f"s.{name}"
    with (
        disk_of(30_000),
        pytest.raises(AudioError, match="can't be written") as caught,
        AudioWriter(path, RATE, 2) as writer,
    ):
        for block in np.array_split(noise, 10, axis=1):
            writer.write(block)
    assert f"s.{name}" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", EXTENSIONS)
def test_an_error_leaves_nothing_behind(tmp_path, name):
    with pytest.raises(ZeroDivisionError), AudioWriter(tmp_path / f"s.{name}", RATE, 2) as writer:
        writer.write(make_signal(1000))
        assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unless_asked(song, tmp_path):
    path = song("s.wav")
    before = path.read_bytes()
    with pytest.raises(AudioError, match="exists already"):
        AudioWriter(path, RATE, 2)
    writer = AudioWriter(tmp_path / "new.wav", RATE, 2)
    (tmp_path / "new.wav").write_bytes(b"somebody else's")
    with pytest.raises(AudioError, match="exists already"):
        writer.close()
    assert (tmp_path / "new.wav").read_bytes() == b"somebody else's"
    song("s.wav", make_signal(10), overwrite=True)
    assert path.read_bytes() != before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["new.wav", "s.wav"]


def test_folders_are_made_and_missing_ones_named(tmp_path):
    with AudioWriter(tmp_path / "a" / "b" / "s.wav", RATE, 1) as writer:
        writer.write(make_signal(10, channels=1))
    assert (tmp_path / "a" / "b" / "s.wav").exists()
    with pytest.raises(AudioError, match="can't be written"):
        AudioWriter(tmp_path / "a" / "b" / "s.wav" / "t.wav", RATE, 1)
    with pytest.raises(AudioError, match="is a folder"):
        AudioWriter(tmp_path / "a", RATE, 1, format="wav", overwrite=True)


def test_a_folder_that_vanishes_is_an_audio_error(tmp_path):
    writer = AudioWriter(tmp_path / "gone" / "s.wav", RATE, 1)
    writer.write(make_signal(10, channels=1))
    for path in (tmp_path / "gone").iterdir():
        path.unlink()
    (tmp_path / "gone").rmdir()
    with pytest.raises(AudioError, match="can't be written"):
        writer.close()


def test_only_files_of_dead_processes_are_stale(tmp_path):
    mine = temporary_path(tmp_path / "x" / "mine.wav")
    mine.parent.mkdir()
    pid = f"-{os.getpid()}-"
    dead = mine.with_name(mine.name.replace(pid, "-4194999-"))  # above the highest pid of Linux
    foreign = mine.with_name(dead.name.replace(".separator-", ".separator-elsewhere"))
    others = [mine.with_name("song.wav"), mine.with_name(".separator-notes.txt")]
    for path in (mine, dead, foreign, *others):
        path.write_bytes(b"")
    assert remove_stale(tmp_path) == []  # folders below are another run's
    assert remove_stale(mine.parent) == [dead]
    assert set(mine.parent.iterdir()) == {mine, foreign, *others}


def picture() -> Cover:
    png = BytesIO(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    return Cover("image/png", png.getvalue())


@pytest.mark.parametrize("name", EXTENSIONS)
def test_tags_come_back_and_the_audio_is_untouched(song, name):
    fields = {
        "title": ["Élan"],
        "artist": ["One", "Two"],
        "album": ["Third"],
        "date": ["1999"],
        "tracknumber": ["3/12"],
        "genre": ["Jazz"],
    }
    signal = make_signal(20_000, 48000)
    plain = song(f"plain.{name}", signal, 48000)
    tagged = song(f"tagged.{name}", signal, 48000, tags=Tags(fields, picture()))
    assert read_tags(plain) == Tags()
    assert read_tags(tagged) == Tags(fields, picture())
    np.testing.assert_array_equal(read_all(tagged), read_all(plain))


@pytest.mark.parametrize("name", EXTENSIONS)
def test_the_same_music_gives_the_same_bytes(song, name):
    tags = Tags({"title": ["Song"]}, picture())
    signal = make_signal(3 * 48000, 48000)
    first = song(f"first.{name}", signal, 48000, tags=tags).read_bytes()
    again = song(f"again.{name}", signal, 48000, tags=tags).read_bytes()
    assert first == again


@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_ogg_streams_of_other_music_have_other_serial_numbers(song, name):
    paths = [song(f"{level}.{name}", make_signal(RATE) * level) for level in (0.5, 1)]
    with paths[0].open("rb") as one, paths[1].open("rb") as other:
        serials = [{page.serial for page in ogg.pages(file)} for file in (one, other)]
    assert [len(found) for found in serials] == [1, 1]
    assert serials[0] != serials[1]
    chain = paths[0].with_name(f"chain.{name}")
    chain.write_bytes(b"".join(path.read_bytes() for path in paths))
    whole = np.concatenate([read_all(path) for path in paths], axis=1)
    assert read_all(chain).shape == whole.shape


@pytest.mark.parametrize("name", ["wav", "flac", "m4a"])
def test_a_huge_cover_costs_no_song(song, name):
    cover = Cover("image/png", bytes(17_000_000))
    tags = Tags({"title": ["Song"]}, cover)
    path = song(f"s.{name}", make_signal(100, 48000), 48000, tags=tags)
    kept = None if name == "flac" else cover  # a block of flac ends at 16 MiB
    assert read_tags(path) == Tags(tags.fields, kept)


@pytest.mark.parametrize("text", ["ééé", "a", "AAAA"])
@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_a_damaged_cover_is_left_out(song, name, text):
    path = song(f"s.{name}", make_signal(100, 48000), 48000, tags=Tags({"title": ["Song"]}))
    file = mutagen.File(path)
    file.tags["metadata_block_picture"] = [text]
    file.save()
    assert read_tags(path) == Tags({"title": ["Song"]})


def test_a_long_name_leaves_room_for_the_hidden_one(song):
    name = "é" * 120 + ".wav"  # 244 of 255 bytes
    assert read_all(song(name, make_signal(10))).shape == (2, 10)


def test_a_name_that_is_too_long_is_an_audio_error(tmp_path):
    with pytest.raises(AudioError, match=r"name too long\. Choose a shorter name"):
        AudioWriter(tmp_path / ("é" * 126 + ".wav"), RATE, 2)  # 256 of 255 bytes
    assert not list(tmp_path.iterdir())


def expected_tags() -> dict[str, list[str]]:
    names = {"title": "Song", "artist": "Me", "album": "First", "date": "1999", "genre": "Jazz"}
    return {name: [value] for name, value in (names | {"tracknumber": "3"}).items()}


@pytest.mark.parametrize(
    ("format", "codec"),
    [("wav", "pcm_s16le"), ("matroska", "flac"), ("asf", "wmav2"), ("caf", "pcm_s16be")],
)
def test_tags_that_only_ffmpeg_finds(tmp_path, format, codec):
    path = tmp_path / "s"
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=RATE, layout="stereo")
        stream.bit_rate = 128_000
        kind = stream.codec_context.codec.audio_formats[0].name
        fields = {name: values[0] for name, values in expected_tags().items()}
        fields["track"] = fields.pop("tracknumber")
        container.metadata.update(fields)
        silence = np.zeros((2, 2 * 2048) if kind.endswith("p") else (1, 4 * 2048), "f4")
        dtype = "f4" if kind.startswith("flt") else "i2"
        stream.format = kind
        frame = av.AudioFrame.from_ndarray(silence[:, : silence.shape[1] // 2].astype(dtype), kind)
        frame.sample_rate = RATE
        container.mux(stream.encode(frame) + stream.encode(None))
    assert read_tags(path).fields == expected_tags()


def test_ape_tags_of_an_mp3(song):
    path = song("s.mp3")
    tags = mutagen.apev2.APEv2()
    for name, values in expected_tags().items():
        key = {"date": "Year", "tracknumber": "Track"}.get(name, name.title())
        tags[key] = values
    tags.save(path)
    assert read_tags(path) == Tags(expected_tags())


def id3_frame(name: bytes, body: bytes, flags: int = 0) -> bytes:
    return name + synchsafe(len(body)) + flags.to_bytes(2, "big") + body


def synchsafe(size: int) -> bytes:
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def compressed(name: bytes, body: bytes) -> bytes:
    return id3_frame(name, synchsafe(len(body)) + zlib.compress(body, 9), 0x0009)


def bombs() -> dict[str, bytes]:
    """Return ID3 frames that ask for memory or time."""
    zeros = bytes(200_000_000)
    return {
        "private": compressed(b"PRIV", b"x\0" + zeros),
        "cover": compressed(b"APIC", b"\3image/png\0\3\0" + zeros),
        "comments": b"".join(
            id3_frame(b"COMM", b"\3eng%d\0x" % number) for number in range(100_000)
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["private", "cover", "comments"])
def test_a_bomb_in_the_tags_costs_the_tags_alone(song, tmp_path, kind):
    plain = song("plain.mp3")
    frames = id3_frame(b"TIT2", b"\3Song") + bombs()[kind]
    path = tmp_path / "s.mp3"
    path.write_bytes(b"ID3\4\0\0" + synchsafe(len(frames)) + frames + plain.read_bytes())
    began = time.process_time()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    tags = read_tags(path)
    np.testing.assert_array_equal(read_all(path), read_all(plain))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert time.process_time() - began < 2
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
    assert tags.fields in ({"title": ["Song"]}, {})
    assert tags.note or tags.fields


def test_many_comments_of_a_flac_are_not_read_by_the_decoder(song, tmp_path):
    """FFmpeg takes a minute for them."""
    plain = song("s.flac").read_bytes()
    comments = [b"K%d=v" % number for number in range(200_000)]
    listed = b"".join(len(text).to_bytes(4, "little") + text for text in comments)
    body = bytes(4) + len(comments).to_bytes(4, "little") + listed
    path = tmp_path / "many.flac"
    path.write_bytes(plain[:42] + b"\4" + len(body).to_bytes(3, "big") + body + plain[42:])
    began = time.process_time()
    np.testing.assert_array_equal(read_all(path), read_all(tmp_path / "s.flac"))
    assert time.process_time() - began < 5


def nested(depth: int) -> bytes:
    boxes = b""
    for _ in range(depth):
        boxes = (len(boxes) + 8).to_bytes(4, "big") + b"moov" + boxes
    return boxes


@pytest.mark.parametrize("depth", [10, 3000])
def test_nested_boxes_cost_no_song(song, depth):
    path = song("s.m4a")
    with path.open("ab") as file:
        file.write(nested(depth))
    assert read_tags(path).cover is None
    assert read_all(path).shape == (2, RATE)


def test_a_damaged_title_costs_the_title_alone(tmp_path):
    path = tmp_path / "s.mp3"
    with AudioWriter(path, RATE, 2) as writer:
        writer.write(make_signal(RATE))
    tags = mutagen.apev2.APEv2()
    tags["Title"] = mutagen.apev2.APEValue(b"\xff\xfe\x00", mutagen.apev2.BINARY)
    tags["Artist"] = "Me"
    tags.save(path)
    assert read_tags(path).fields["artist"] == ["Me"]
