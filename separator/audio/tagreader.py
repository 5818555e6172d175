"""A program that prints the tags of one file as lines of JSON, run in a process of its own.

Tags are read by libraries that believe what a file says: a few hundred kilobytes can ask for
gigabytes (compressed frames), for minutes (a hundred thousand comments) or for an endless descent
(nested boxes). Here, that costs the tags and not the song. Only the standard library and what reads
tags is imported, so that it starts in a moment: mutagen, and FFmpeg for what mutagen doesn't find.

    python -I -S tagreader.py '["/where/modules/are"]' song.mp3
"""

# mypy: disable-error-code="no-untyped-call"
# (mutagen is typed in part only)

from __future__ import annotations

import base64
import json
import os
import sys
from contextlib import suppress
from typing import Any

#: The fields that are carried over, by their names in Vorbis comments, and in ID3.
ID3_FRAMES = {
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
#: How comments hold a cover: as text.
PICTURE = "metadata_block_picture"
FRONT_COVER = 3
# Other names in FFmpeg's dictionaries.
_ALIASES = {
    "album_artist": "albumartist",
    "author": "artist",
    "year": "date",
    "track": "tracknumber",
    "track number": "tracknumber",
    "disc": "discnumber",
    "tbpm": "bpm",
    "tempo": "bpm",
    "tsrc": "isrc",
}
_USUAL = {"title", "artist", "album", "date", "genre", "tracknumber"}
_MEMORY, _SECONDS = 1 << 29, 2
_LONGEST, _MOST = 2000, 50  # characters of a value, values of a field
_LARGEST = 1 << 25  # bytes of a cover


def main() -> None:
    """Print the tags of the file that is named last."""
    folders, path = sys.argv[1:]
    sys.path += json.loads(folders)
    _limit()
    fields: dict[str, list[str]] = {}
    # whatever a library trips over costs no more than its answer
    with suppress(Exception):
        fields, cover = _by_mutagen(path)
        _tell(fields, cover)
    if not fields.keys() >= _USUAL:
        with suppress(Exception):
            _tell(_by_ffmpeg(path), None)


def _tell(fields: dict[str, list[str]], cover: tuple[str, bytes] | None) -> None:
    """Print one answer as a line."""
    data: dict[str, Any] = {"fields": {name: _short(values) for name, values in fields.items()}}
    if cover and len(cover[1]) <= _LARGEST:
        data["cover"] = {"mime": cover[0][:100], "data": base64.b64encode(cover[1]).decode()}
    with os.fdopen(1, "w", closefd=False) as output:
        output.write(f"{json.dumps(data)}\n")


def _limit() -> None:
    """Take no more memory and time than honest tags need, where the system can limit them."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _short(values: list[str]) -> list[str]:
    return [value[:_LONGEST] for value in values[:_MOST]]


def _by_mutagen(path: str) -> tuple[dict[str, list[str]], tuple[str, bytes] | None]:
    import mutagen

    file = mutagen.File(path)
    if file is None:
        return {}, None
    fields: dict[str, list[str]] = {}
    cover = None
    with suppress(Exception):
        cover = _cover(file)
    with suppress(Exception):
        fields = _fields(file)
    return fields, cover


def _fields(file: Any) -> dict[str, list[str]]:
    from mutagen.apev2 import APEv2
    from mutagen.easymp4 import EasyMP4
    from mutagen.id3 import ID3
    from mutagen.mp4 import MP4

    if isinstance(file, MP4):
        return _named(EasyMP4(file.filename))
    if not isinstance(file.tags, ID3):
        return _named(file.tags or APEv2(file.filename))
    found = {
        name: [str(value) for value in file.tags[frame].text]
        for name, frame in ID3_FRAMES.items()
        if frame in file.tags
    }
    return found or _named(APEv2(file.filename))  # mp3s have them, too


def _named(tags: Any) -> dict[str, list[str]]:
    """Return the fields of a dictionary of lists, each without repetitions."""
    found: dict[str, list[str]] = {}
    for key in tags.keys():  # noqa: SIM118 - not every kind can be iterated
        name = _ALIASES.get(key.lower(), key.lower())
        with suppress(Exception):  # binary where text belongs, say
            if name in ID3_FRAMES and (values := [str(value) for value in tags[key]]):
                found.setdefault(name, list(dict.fromkeys(values)))
    return found


def _cover(file: Any) -> tuple[str, bytes] | None:
    import mutagen
    from mutagen.flac import Picture
    from mutagen.id3 import ID3
    from mutagen.mp4 import MP4, MP4Cover

    pictures: list[Any] = list(getattr(file, "pictures", []))
    if isinstance(file, MP4):
        covers: list[Any] = file.tags["covr"] if file.tags and "covr" in file.tags else []
        for data in covers:
            png = data.imageformat == MP4Cover.FORMAT_PNG
            return "image/png" if png else "image/jpeg", bytes(data)
    elif isinstance(file.tags, ID3):
        pictures = file.tags.getall("APIC")
    elif file.tags and not pictures:
        with suppress(KeyError, ValueError, mutagen.MutagenError):  # it may not be base64
            pictures = [Picture(base64.b64decode(text)) for text in file.tags[PICTURE]]
    pictures.sort(key=lambda picture: picture.type != FRONT_COVER)
    return (pictures[0].mime, bytes(pictures[0].data)) if pictures else None


def _by_ffmpeg(path: str) -> dict[str, list[str]]:
    """Return what FFmpeg finds: RIFF's INFO, Matroska, WMA, CAF, APE tags behind an mp3."""
    import av

    with av.open(path, options={"protocol_whitelist": "file"}, metadata_errors="replace") as file:
        pairs = [*file.metadata.items()]
        for stream in file.streams.audio[:1]:
            pairs += stream.metadata.items()
    fields: dict[str, list[str]] = {}
    for key, value in pairs:
        name = _ALIASES.get(key.lower(), key.lower())
        if name in ID3_FRAMES and value.strip():
            fields.setdefault(name, [value.strip()])
    return fields


if __name__ == "__main__":
    main()
