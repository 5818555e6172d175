#!/usr/bin/env python
"""Read damaged copies of small files of many formats, and see that nothing worse comes of it.

    scripts/fuzz_audio.py --seconds 60 --seed 0

Each copy is read to its end (audio and tags) by a process whose memory is limited, under a clock.
What it may do: give audio, or raise an error of this package. All else is counted as a defect, told
with its seed, and ends the run with exit code 1; the files are kept in `--keep`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import av
import numpy as np

from separator.audio.formats import FORMATS
from separator.audio.reader import open_audio
from separator.audio.tags import Cover, Tags, read_tags
from separator.audio.writer import AudioWriter
from separator.errors import SeparatorError

_RATE = 44100
_ADDRESSES = 4 << 30  # bytes that a reader may map
_MEMORY = 600 << 20  # bytes that it may use
_CLOCK = 20.0  # seconds for one file
_TAGS_EACH = 20  # files of which one has its tags read, too: that takes a process
_MUXED = [
    ("wav", "adpcm_ms"),
    ("wav", "adpcm_ima_wav"),
    ("w64", "pcm_s24le"),
    ("aiff", "pcm_s16be"),
    ("caf", "alac"),
    ("au", "pcm_s16be"),
    ("wv", "wavpack"),
    ("tta", "tta"),
    ("asf", "wmav2"),
    ("avi", "mp2"),
    ("matroska", "flac"),
    ("mpegts", "aac"),
    ("adts", "aac"),
    ("ac3", "ac3"),
    ("ogg", "flac"),
]


def main() -> int:
    """Fuzz for the time given; return the exit code."""
    parser = argparse.ArgumentParser(description="Read damaged audio files.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for files that showed a defect")
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        originals = make_files(Path(folder))
        reader = Reader()
        end, number = time.monotonic() + options.seconds, 0
        while time.monotonic() < end:
            name, data = mutated(originals, random.Random(f"{options.seed} {number}"))
            path = Path(folder) / f"fuzzed{Path(name).suffix}"
            path.write_bytes(data)
            outcome = reader.read(path, with_tags=number % _TAGS_EACH == 0)
            outcomes[outcome.split(":")[0]] += 1
            if outcome.startswith("defect"):
                print(f"{number} ({name}, seed {options.seed}): {outcome}")
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{options.seed}-{number}-{name}").write_bytes(data)
            number += 1
        reader.stop()
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))
    return 1 if outcomes["defect"] else 0


def make_files(folder: Path) -> dict[str, bytes]:
    """Write a short sound in all formats; return the files' bytes by their names."""
    sound = np.random.default_rng(0).normal(0, 0.1, (2, _RATE // 4)).astype(np.float32)
    tags = Tags({"title": ["Song"], "artist": ["Me"]}, Cover("image/png", bytes(200)))
    for name in FORMATS:
        with AudioWriter(folder / f"own.{name}", _RATE, 2, tags=tags) as writer:
            writer.write(sound)
    for container, codec in _MUXED:
        mux(folder / f"{codec}.{container}", container, codec, sound)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    files["chain.ogg"] = files["own.ogg"] + files["own.ogg"]
    files["joined.mp3"] = files["own.mp3"] + files["own.mp3"]
    return files


def mux(path: Path, container: str, codec: str, sound: np.ndarray) -> None:
    """Write a file by FFmpeg, in the codec's first kind of samples."""
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=_RATE, layout="stereo")
        stream.bit_rate = 128_000
        kind = stream.codec_context.codec.audio_formats[0].name
        stream.format = kind
        frame = av.AudioFrame.from_ndarray(sound.T.reshape(1, -1).copy(), "flt", "stereo")
        frame.sample_rate = _RATE
        fifo = av.AudioFifo()
        for ready in av.AudioResampler(format=kind, layout="stereo", rate=_RATE).resample(frame):
            fifo.write(ready)
        while (piece := fifo.read(stream.codec_context.frame_size or 4096, True)) is not None:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))


def mutated(originals: dict[str, bytes], chance: random.Random) -> tuple[str, bytes]:
    """Return the name of a file and its bytes with one to eight damages, most of them in front."""
    name = chance.choice(sorted(originals))
    data = bytearray(originals[name])
    for _ in range(chance.randint(1, 8)):
        reach = len(data) if chance.random() < 0.4 else min(len(data), 300)
        at = chance.randrange(max(1, reach))
        kind = chance.randrange(6)
        if kind == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            number = chance.choice([0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000])
            data[at : at + 4] = struct.pack(chance.choice("<>") + "I", number)
        elif kind == 2:
            del data[at : at + chance.randint(1, 2000)]
        elif kind == 3:
            data[at:at] = data[at : at + chance.randint(1, 2000)]
        elif kind == 4:
            data[at:at] = chance.randbytes(chance.randint(1, 50))
        else:
            del data[max(20, at) :]
    return name, bytes(data)


class Reader:
    """A process that reads files, replaced when it hangs or dies."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=work, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self._pipe.recv()  # it has started

    def read(self, path: Path, *, with_tags: bool) -> str:
        """Return how reading ended: `audio`, `refused: ...` or `defect: ...`."""
        self._pipe.send((str(path), with_tags))
        outcome = f"defect: it takes more than {_CLOCK:g} s"
        with suppress(EOFError, ConnectionError):
            if self._pipe.poll(_CLOCK):
                outcome = "defect: the process died"
                return str(self._pipe.recv())
        self.stop()
        self._start()
        return outcome

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def work(pipe: Connection) -> None:
    """Read the files that come through the pipe, within limits."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    pipe.send("ready")
    while True:
        path, with_tags = pipe.recv()
        outcome = attempt(Path(path), with_tags)
        if 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _MEMORY:
            pipe.send("defect: it takes too much memory")
            return
        pipe.send(outcome)


def attempt(path: Path, with_tags: bool) -> str:
    """Read a file to its end."""
    try:
        if with_tags:
            read_tags(path)
        with open_audio(path) as reader:
            for _ in reader.blocks():
                pass
    except SeparatorError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"defect: {type(error).__name__}: {error}"
    return "audio"


if __name__ == "__main__":
    sys.exit(main())
