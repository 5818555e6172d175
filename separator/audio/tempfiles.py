"""Files under construction: hidden, named after their process, renamed when they are whole."""

from __future__ import annotations

import os
import platform
import re
import secrets
from contextlib import suppress
from pathlib import Path

_PREFIX = ".separator"
_NAME = re.compile(rf"{re.escape(_PREFIX)}-(?P<host>.*)-(?P<pid>\d+)-[0-9a-f]{{8}}-")


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
