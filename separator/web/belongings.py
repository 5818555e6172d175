"""The server's private folder, deleted when it ends; the next one deletes what a kill has left."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: files in use can't be deleted there, which is all that is needed
    fcntl = None  # type: ignore[assignment]

_PREFIX, _LOCK = "separator-web-", "lock"
_NEW = 60.0  # seconds in which a server gets round to locking its folder


def private_folder() -> tuple[IO[bytes], Path]:
    """Make a folder for one server; return the lock that says it is in use, and the folder."""
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = (folder / _LOCK).open("wb")
    _is_free(lock)
    return lock, folder


def _sweep(where: Path) -> None:
    """Delete the folders of this user's servers that are no more."""
    for folder in where.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another may delete it at this very moment
            if folder.is_symlink() or not _is_ours(folder):
                continue
            if not (folder / _LOCK).exists():
                if time.time() - folder.stat().st_mtime > _NEW:
                    shutil.rmtree(folder)
                continue
            with (folder / _LOCK).open("rb+") as lock:
                if _is_free(lock):
                    shutil.rmtree(folder, ignore_errors=fcntl is None)


def _is_ours(folder: Path) -> bool:
    return folder.is_dir() and (not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid())


def _is_free(lock: IO[bytes]) -> bool:
    """Take a lock, or tell that somebody else has it; the system frees those of the dead."""
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
