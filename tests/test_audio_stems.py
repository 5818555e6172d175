import json
import os
import signal as signals
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import make_signal, read_all
from test_audio_writer import disk_of, picture

from separator import files
from separator.audio.reader import probe
from separator.audio.stems import StemWriter
from separator.audio.tags import Tags, read_tags
from separator.audio.writer import AudioWriter
from separator.errors import AudioError, ConfigError
from separator.files import remove_stale

RATE = 44100
STEMS = ("vocals", "drums", "bass", "other")


def make_stems(peak: float, samples: int = 30_000) -> dict[str, np.ndarray]:
    """Return four noises whose sum peaks at `peak`, alone they stay below it."""
    noise = np.random.default_rng(0).uniform(-1, 1, (4, 2, samples)).astype(np.float32)
    noise *= np.float32(peak) / np.abs(noise.sum(0)).max()
    return dict(zip(STEMS, noise, strict=True))


def write(paths, stems, rate=RATE, **options):
    with StemWriter(paths, rate, 2, **options) as writer:
        for begin in range(0, stems[STEMS[0]].shape[1], 7000):
            writer.write({name: stem[:, begin : begin + 7000] for name, stem in stems.items()})
    return writer.gain


def paths_in(folder, extension):
    return {name: folder / f"{name}.{extension}" for name in STEMS}


@pytest.mark.parametrize(
    ("extension", "depth"), [("wav", 16), ("wav", 24), ("flac", 16), ("flac", 24), ("wav", 32)]
)
def test_stems_null_against_the_mixture_to_their_rounding(tmp_path, extension, depth):
    stems = make_stems(0.9)
    paths = paths_in(tmp_path, extension)
    assert write(paths, stems, bit_depth=depth) == 1
    total = sum(read_all(path).astype(np.float64) for path in paths.values())
    mixture = sum(stem.astype(np.float64) for stem in stems.values())
    bound = 0 if depth == 32 else 0.5 * len(STEMS) / 2 ** (depth - 1)
    assert np.abs(total - mixture).max() <= bound


@pytest.mark.parametrize("depth", [16, 24])
def test_what_would_clip_gets_one_gain_for_all(tmp_path, depth):
    stems = make_stems(0.9)
    stems["drums"] *= np.float32(10 ** (3 / 20) / np.abs(stems["drums"]).max())  # +3 dBFS
    paths = paths_in(tmp_path, "wav")
    gain = write(paths, stems, bit_depth=depth)
    assert 20 * np.log10(gain) == pytest.approx(-3, abs=1e-3)
    step = 1 / 2 ** (depth - 1)
    written = {name: read_all(path).astype(np.float64) for name, path in paths.items()}
    assert np.abs(written["drums"]).max() == pytest.approx(1, abs=1e-5)
    total = sum(written.values())
    mixture = sum(stem.astype(np.float64) for stem in stems.values())
    rounding = 2**-24  # of the float32 products
    assert np.abs(total - gain * mixture).max() <= 4 * (0.5 * step + rounding)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        p.name for p in paths.values()
    )


def test_full_scale_itself_is_no_clipping(tmp_path):
    stems = {name: np.zeros((2, 10), np.float32) for name in STEMS}
    stems["bass"][0, 0], stems["bass"][1, 0] = -1, 32767 / 32768
    assert write(paths_in(tmp_path, "wav"), stems, bit_depth=16) == 1
    np.testing.assert_array_equal(read_all(tmp_path / "bass.wav"), stems["bass"])


def test_float_is_written_as_it_is(tmp_path):
    stems = make_stems(8.0)
    assert write(paths_in(tmp_path, "wav"), stems, bit_depth=32) == 1
    np.testing.assert_array_equal(read_all(tmp_path / "bass.wav"), stems["bass"])


def test_lossy_stems_share_the_gain_and_their_length(tmp_path):
    stems = {name: make_signal(RATE + 11) * 5 for name in STEMS}  # peak 2
    gain = write(paths_in(tmp_path, "mp3"), stems)
    assert gain == pytest.approx(0.5, rel=1e-3)
    assert all(read_all(path).shape == (2, RATE + 11) for path in tmp_path.iterdir())


def test_depth_layout_and_tags_follow_the_source(tmp_path, song):
    tags = Tags({"title": ["Song"], "artist": ["Somebody"]}, picture())
    layout = ("FL", "FR", "FC", "LFE", "SL", "SR")
    six = make_signal(1000, channels=6)
    source = probe(song("song.flac", six, bit_depth=24, layout=layout, tags=tags))
    paths = {"vocals": tmp_path / "out" / "vocals.wav", "other": tmp_path / "out" / "other.flac"}
    with StemWriter(paths, RATE, 6, source=source) as writer:
        writer.write({"vocals": six, "other": six})
    for name, path in paths.items():
        assert (probe(path).bit_depth, probe(path).layout) == (24, layout)
        assert read_tags(path).fields["title"] == [f"Song ({name})"]
        assert read_tags(path).cover == picture()


def test_an_error_of_the_caller_leaves_nothing(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        StemWriter(paths_in(tmp_path, "flac"), RATE, 2) as writer,
    ):
        writer.write(make_stems(0.5))
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    assert "stem-writer" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("extension", ["wav", "mp3"])
def test_a_full_disk_is_told_to_the_caller_and_leaves_nothing(tmp_path, extension):
    with disk_of(50_000), pytest.raises(AudioError, match="can't be written"):
        write(paths_in(tmp_path, extension), make_stems(0.5, 200_000))
    assert not list(tmp_path.iterdir())


def test_a_stem_that_cannot_be_named_takes_the_others_back(tmp_path):
    paths = paths_in(tmp_path, "wav")
    with pytest.raises(AudioError, match=r"bass\.wav"), StemWriter(paths, RATE, 2) as writer:
        writer.write(make_stems(0.5))
        paths["bass"].mkdir()
    assert list(tmp_path.iterdir()) == [paths["bass"]]


def test_overwriting_replaces_all_stems_or_none(tmp_path):
    paths = paths_in(tmp_path, "wav")
    for path in paths.values():
        path.write_bytes(b"old")
    with (
        pytest.raises(AudioError, match=r"bass\.wav"),
        StemWriter(paths, RATE, 2, overwrite=True) as writer,
    ):
        writer.write(make_stems(0.5))
        paths["bass"].unlink()
        paths["bass"].mkdir()
    assert set(tmp_path.iterdir()) == set(paths.values())
    for name in ("vocals", "drums", "other"):
        assert paths[name].read_bytes() == b"old"
    paths["bass"].rmdir()
    stems = make_stems(0.5)
    write(paths, stems, bit_depth=32, overwrite=True)
    assert set(tmp_path.iterdir()) == set(paths.values())
    for name, path in paths.items():
        np.testing.assert_array_equal(read_all(path), stems[name])


def test_an_old_stem_is_there_until_the_new_one_is(tmp_path, monkeypatch):
    """So killing the program in between loses nothing."""
    paths = paths_in(tmp_path, "wav")
    for path in paths.values():
        path.write_bytes(b"old")
    publish, seen = AudioWriter.publish, []

    def watched(writer: AudioWriter) -> None:
        seen.append(writer.path.read_bytes())
        publish(writer)

    monkeypatch.setattr(AudioWriter, "publish", watched)
    write(paths, make_stems(0.5), overwrite=True)
    assert seen == [b"old"] * len(paths)
    assert set(tmp_path.iterdir()) == set(paths.values())


@pytest.mark.parametrize("missing", STEMS)
def test_one_stem_that_is_made_again_has_the_level_it_had(tmp_path, missing):
    stems = make_stems(0.9)
    stems["drums"] *= np.float32(2 / np.abs(stems["drums"]).max())
    paths = paths_in(tmp_path, "wav")
    gain = write(paths, stems)
    before = {name: path.read_bytes() for name, path in paths.items()}
    paths[missing].unlink()
    assert write({missing: paths[missing]}, stems, others=STEMS) == gain
    assert {name: path.read_bytes() for name, path in paths.items()} == before


def first_at(monkeypatch, paths, names):
    """Let another run publish its stems just before ours of the last name gets its name."""
    give_name = files.give_name

    def late(part, path):
        if path == paths[names[-1]]:
            for name in names:
                other = paths[name].with_suffix(".other")
                other.write_bytes(b"the other run's")
                other.replace(paths[name])
        give_name(part, path)

    monkeypatch.setattr("separator.audio.writer.give_name", late)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("names", [("bass",), ("vocals", "bass")])
def test_the_loser_of_a_race_leaves_the_winners_stems(tmp_path, monkeypatch, names, links):
    if not links:
        monkeypatch.setattr(type(tmp_path), "hardlink_to", no_links)
    paths = paths_in(tmp_path, "wav")
    first_at(monkeypatch, paths, names)
    with pytest.raises(AudioError, match=r"bass\.wav' exists already"):
        write(paths, make_stems(0.5))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        f"{name}.wav": b"the other run's" for name in names
    }


def no_links(path, target):
    raise PermissionError(1, "Operation not permitted")


def test_without_links_a_name_is_given_once_too(tmp_path, monkeypatch):
    monkeypatch.setattr(type(tmp_path), "hardlink_to", no_links)
    paths = paths_in(tmp_path, "wav")
    write(paths, make_stems(0.5))
    assert set(tmp_path.iterdir()) == set(paths.values())


def test_existing_stems_are_kept(tmp_path):
    paths = paths_in(tmp_path, "wav")
    paths["other"].write_bytes(b"mine")
    with pytest.raises(AudioError, match="exists already"):
        StemWriter(paths, RATE, 2)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_wrong_stems_and_shared_paths_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="a path of its own"):
        StemWriter({"a": tmp_path / "x.wav", "b": tmp_path / "x.wav"}, RATE, 2)
    with (
        pytest.raises(ConfigError, match="wanted: a"),
        StemWriter({"a": tmp_path / "a.wav"}, RATE, 2) as writer,
    ):
        writer.write({"b": make_signal(10)})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_process_leaves_only_what_can_be_recognised(tmp_path):
    code = (
        "import sys, json, numpy as np; from pathlib import Path\n"
        "from separator.audio.stems import StemWriter\n"
        "paths = {k: Path(v) for k, v in json.loads(sys.argv[1]).items()}\n"
        "writer = StemWriter(paths, 44100, 2)\n"
        "writer.write({name: np.zeros((2, 5000), np.float32) for name in paths})\n"
        "print('written', flush=True); sys.stdin.read()\n"
    )
    paths = {name: str(path) for name, path in paths_in(tmp_path, "wav").items()}
    with subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(paths)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        assert not remove_stale(tmp_path)
        os.kill(process.pid, signals.SIGKILL)
    left = list(tmp_path.iterdir())
    assert left
    assert all(path.name.startswith(".separator-") for path in left)
    assert sorted(remove_stale(tmp_path)) == sorted(left)


def test_encoding_overlaps_with_the_caller(tmp_path, monkeypatch):
    """A block is taken before anything of it is encoded."""
    stems, taken = make_stems(0.5), threading.Event()
    encode = AudioWriter.write

    def held(writer, block):
        assert taken.wait(60), "the caller waits for the encoder"
        encode(writer, block)

    monkeypatch.setattr(AudioWriter, "write", held)
    with StemWriter(paths_in(tmp_path, "flac"), RATE, 2) as writer:
        writer.write(stems)
        taken.set()
    for name, path in paths_in(tmp_path, "flac").items():
        assert read_all(path).shape == stems[name].shape
