"""Files that appear whole or not at all: hidden while they are written, then renamed.

A hidden file is named after its process, so that what a killed one left can be removed.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".separator"
_NAME = re.compile(rf"{re.escape(_PREFIX)}-(?P<host>.*)-(?P<pid>\d+)-[0-9a-f]{{8}}-")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a hidden path to write to; it becomes `path` at the end, or is removed if that fails.

    The hidden name ends in `.part`, so that nobody who looks for files of a kind takes it for one.
    A link stays, and the file that it leads to is replaced. What is no regular file (a device, a
    pipe) is itself written to.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        yield path
        return
    part = temporary_path(path.with_name(f"{path.name}.part"))
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def give_name(part: Path, path: Path) -> None:
    """Rename a finished file, unless another one has the name: never two of them think they won.

    Raises:
        FileExistsError: Another file has the name.
    """
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # where there are no links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            part.replace(path)
        except BaseException:
            path.unlink()
            raise
    else:
        part.unlink()


def temporary_path(target: Path) -> Path:
    """Return a hidden name beside `target` that tells which process is writing it.

    >>> temporary_path(Path("out/bass.wav")).name.startswith(".separator-")
    True
    """
    # long names of songs leave no room for a prefix: at most 255 bytes are allowed
    ending = target.name[-40:]
    return target.with_name(f"{_PREFIX}-{_host()}-{os.getpid()}-{secrets.token_hex(4)}-{ending}")


def remove_stale(folder: Path) -> list[Path]:
    """Remove what killed processes of this computer left in a folder, not below it.

    Files of processes that still run, and of other computers, stay.
    """
    removed = []
    for path in folder.glob(f"{_PREFIX}-*"):
        match = _NAME.match(path.name)
        if match and match["host"] == _host() and not _is_running(int(match["pid"])):
            with suppress(OSError):
                path.unlink()
                removed.append(path)
    return removed


def _host() -> str:
    return re.sub(r"\W", "_", platform.node())[:32]


def _is_running(pid: int) -> bool:
    if os.name == "nt":
        return pid == os.getpid()  # there, files in use can't be removed anyway
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
