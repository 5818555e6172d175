"""Carrying title, artist, cover and the like from a song to its stems."""

# mypy: disable-error-code="no-untyped-call"
# (mutagen is typed in part only)

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mutagen
from mutagen.easymp4 import EasyMP4, EasyMP4Tags
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, ID3, Frames
from mutagen.mp4 import MP4, MP4Cover
from mutagen.wave import WAVE

# The fields that are carried over, by their names in Vorbis comments, and in ID3.
_ID3_FRAMES = {
    "title": "TIT2",
    "artist": "TPE1",
    "album": "TALB",
    "albumartist": "TPE2",
    "composer": "TCOM",
    "date": "TDRC",
    "genre": "TCON",
    "tracknumber": "TRCK",
    "discnumber": "TPOS",
    "bpm": "TBPM",
    "copyright": "TCOP",
    "isrc": "TSRC",
}
_FRONT_COVER = 3
_PICTURE = "metadata_block_picture"  # how Ogg holds a cover: as text
_FLAC_BLOCK = 1 << 24  # bytes that a block of metadata doesn't reach


@dataclass(frozen=True)
class Cover:
    """A picture, with its type such as `image/jpeg`."""

    mime: str
    data: bytes


@dataclass(frozen=True)
class Tags:
    """What a song is called, and its cover."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    cover: Cover | None = None

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
    """Return the tags of a file; none where it has none, or they are damaged."""
    with suppress(mutagen.MutagenError):
        if (file := mutagen.File(path)) is not None:
            return Tags(_fields(file), _cover(file))
    return Tags()


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


def _fields(file: Any) -> dict[str, list[str]]:
    source: Any = file.tags or {}
    if isinstance(file, MP4):
        source = EasyMP4(file.filename)
        names = [name for name in _ID3_FRAMES if name in EasyMP4Tags.Get]
    elif isinstance(file.tags, ID3):
        return {
            name: [str(value) for value in file.tags[frame].text]
            for name, frame in _ID3_FRAMES.items()
            if frame in file.tags
        }
    else:
        names = list(_ID3_FRAMES)
    return {name: [str(value) for value in source[name]] for name in names if name in source}


def _cover(file: Any) -> Cover | None:
    pictures: list[Any] = list(getattr(file, "pictures", []))
    if isinstance(file, MP4):
        covers: list[Any] = file.tags["covr"] if file.tags and "covr" in file.tags else []
        for data in covers:
            png = data.imageformat == MP4Cover.FORMAT_PNG
            return Cover("image/png" if png else "image/jpeg", bytes(data))
    elif isinstance(file.tags, ID3):
        pictures = file.tags.getall("APIC")
    elif file.tags and not pictures:
        with suppress(KeyError, ValueError, mutagen.MutagenError):  # it may not be base64
            pictures = [Picture(base64.b64decode(text)) for text in file.tags[_PICTURE]]
    pictures.sort(key=lambda picture: picture.type != _FRONT_COVER)
    return Cover(pictures[0].mime, bytes(pictures[0].data)) if pictures else None


def _write_id3(file: Any, tags: Tags) -> None:
    for name, values in tags.fields.items():
        frame = _ID3_FRAMES[name]
        file.tags.setall(frame, [Frames[frame](encoding=3, text=values)])
    if tags.cover:
        file.tags.add(
            APIC(encoding=3, mime=tags.cover.mime, type=_FRONT_COVER, data=tags.cover.data)
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
        picture.type, picture.mime, picture.data = _FRONT_COVER, tags.cover.mime, tags.cover.data
        block = picture.write()
        if not isinstance(file, FLAC):
            file.tags[_PICTURE] = [base64.b64encode(block).decode("ascii")]
        elif len(block) < _FLAC_BLOCK:
            file.add_picture(picture)
    file.save()
