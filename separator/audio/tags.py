"""Carrying title, artist, cover and the like from a song to its stems."""

# mypy: disable-error-code="no-untyped-call"
# (mutagen is typed in part only)

from __future__ import annotations

import base64
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mutagen
from mutagen.easymp4 import EasyMP4
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, ID3, Frames
from mutagen.mp4 import MP4, MP4Cover
from mutagen.wave import WAVE

from separator.audio import tagreader
from separator.audio.tagreader import FRONT_COVER, ID3_FRAMES, PICTURE

_FLAC_BLOCK = 1 << 24  # bytes that a block of metadata doesn't reach
_LEFT_OUT = "Its tags take too much memory or time; what can't be read of them was left out."
_PATIENCE = 60.0  # seconds; processor time is limited more tightly


@dataclass(frozen=True)
class Cover:
    """A picture, with its type such as `image/jpeg`."""

    mime: str
    data: bytes


@dataclass(frozen=True)
class Tags:
    """What a song is called, and its cover; `note` says what is wrong with the file's."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    cover: Cover | None = None
    note: str | None = None

    def __bool__(self) -> bool:
        return bool(self.fields or self.cover)

    def for_stem(self, stem: str) -> Tags:
        """Return the tags of one stem: the title names it.

        >>> Tags({"title": ["Song"]}).for_stem("vocals").fields["title"]
        ['Song (vocals)']
        """
        titles = [f"{title} ({stem})" for title in self.fields.get("title", [])]
        return replace(self, fields=self.fields | ({"title": titles} if titles else {}))


def read_tags(path: Path) -> Tags:
    """Return the tags of a file; none where it has none, or they are damaged.

    They are read by a process of its own, whose memory and time are limited.
    """
    command = [sys.executable, "-I", "-S", tagreader.__file__, json.dumps(sys.path)]
    try:
        done = subprocess.run(
            [*command, str(path.absolute())],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE,
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return Tags(note=_LEFT_OUT)
    fields: dict[str, list[str]] = {}
    for answer in answers:
        fields = answer["fields"] | fields
    covers = [answer["cover"] for answer in answers if "cover" in answer]
    return Tags(
        fields,
        Cover(covers[0]["mime"], base64.b64decode(covers[0]["data"])) if covers else None,
        _LEFT_OUT if done.returncode else None,
    )


def write_tags(path: Path, format: str, tags: Tags) -> None:
    """Write tags into a finished file of one of our formats.

    Raises:
        OSError: The file can't be written.
    """
    if format == "wav" and not _is_riff(path):
        return  # beyond 4 GB (RF64) there is no agreed place for them
    try:
        file = WAVE(path) if format == "wav" else mutagen.File(path)
        if file.tags is None:
            file.add_tags()
        if isinstance(file, MP4):
            _write_mp4(path, file, tags)
        elif isinstance(file.tags, ID3):
            _write_id3(file, tags)
        else:
            _write_vorbis(file, tags)
    except mutagen.MutagenError as error:
        raise OSError(f"tags can't be written ({error})") from error


def _is_riff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"RIFF"


def _write_id3(file: Any, tags: Tags) -> None:
    for name, values in tags.fields.items():
        frame = ID3_FRAMES[name]
        file.tags.setall(frame, [Frames[frame](encoding=3, text=values)])
    if tags.cover:
        file.tags.add(
            APIC(encoding=3, mime=tags.cover.mime, type=FRONT_COVER, data=tags.cover.data)
        )
    file.save()


def _write_mp4(path: Path, file: MP4, tags: Tags) -> None:
    if tags.cover:
        png = tags.cover.mime == "image/png"
        kind = MP4Cover.FORMAT_PNG if png else MP4Cover.FORMAT_JPEG
        file["covr"] = [MP4Cover(tags.cover.data, kind)]
        file.save()
    easy = EasyMP4(path)
    for name, values in tags.fields.items():
        with suppress(KeyError, ValueError):  # MP4 has no such field, or wants a number there
            easy[name] = values
    easy.save()


def _write_vorbis(file: Any, tags: Tags) -> None:
    for name, values in tags.fields.items():
        file.tags[name] = values
    if tags.cover:
        picture = Picture()
        picture.type, picture.mime, picture.data = FRONT_COVER, tags.cover.mime, tags.cover.data
        block = picture.write()
        if not isinstance(file, FLAC):
            file.tags[PICTURE] = [base64.b64encode(block).decode("ascii")]
        elif len(block) < _FLAC_BLOCK:
            file.add_picture(picture)
    file.save()
