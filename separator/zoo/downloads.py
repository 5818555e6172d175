"""Download a file: resumed where it was cut, verified before first use, whole or not at all.

```
target.part  ->  sha256 as expected?  ->  rename to target
     ^ kept when the connection ends early; the next run asks for the rest (HTTP Range)
```
Two processes that want one file don't meet: the second waits and finds it ready.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from separator.errors import ModelError
from separator.version import __version__
from separator.words import megabytes

ATTEMPTS = 5
WAIT = 0.5  # seconds before the second attempt, doubled before each further one
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 20

Progress = Callable[[int, int], None]  # bytes that are there, bytes in total


class _Cut(Exception):
    """The connection ended early: worth another attempt."""


class _Failed(Exception):
    """This address doesn't give the file."""


def fetch(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str | None,
    size: int | None,
    progress: Progress | None = None,
) -> Path:
    """Download `target` from the first of `urls` that gives the right bytes.

    Args:
        urls: http(s) addresses of the same file, tried in order.
        target: where the file will appear, whole and verified. If it exists it is left as it is.
        sha256: expected hash, in lower-case hexadecimal digits, or the first of them; None where
            it isn't known.
        size: expected number of bytes; None where it isn't known, then nothing is resumed.
        progress: called after each block; what it raises ends the download, to be resumed later.

    Raises:
        ModelError: no address gives the right bytes, or the disk doesn't take them.
    """
    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.is_file():
                _fetch_from_any(urls, target, sha256, size, progress or _ignore)
    except OSError as error:  # the network's errors are handled inside: this is the disk's
        raise ModelError(
            f"Can't write '{target}': {error.strerror or error}. Free some space, or choose "
            "another folder with $SEPARATOR_CACHE."
        ) from error
    return target


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits, read in blocks."""
    import pooch

    digest: str = pooch.file_hash(str(path), alg="sha256")
    return digest


def _fetch_from_any(
    urls: Sequence[str], target: Path, sha256: str | None, size: int | None, progress: Progress
) -> None:
    part = target.with_name(f"{target.name}.part")
    _require_space(target.parent, (size or 0) - _size(part))
    failures = []
    for url in urls:
        try:
            _fetch_verified(url, part, sha256, size, progress)
        except _Failed as failure:
            failures.append(f"{url}: {failure}")
        else:
            part.replace(target)
            return
    arrived = _size(part)
    resume = f" {megabytes(arrived)} of {megabytes(size)} arrived; run again to resume."
    raise ModelError(
        f"Can't download '{target.name}' from {'; '.join(failures)}."
        f"{resume if arrived and size else ''}"
    )


def _fetch_verified(
    url: str, part: Path, sha256: str | None, size: int | None, progress: Progress
) -> None:
    resumed = part.exists()
    _fetch_patiently(url, part, size, progress)
    if sha256 is None or (found := sha256_of(part)).startswith(sha256):
        return
    part.unlink()
    if not resumed:
        raise _Failed(f"wrong content, expected sha256 {sha256}, got {found}; it was removed")
    # The wrong bytes may be those of an earlier run: once more from the start.
    _fetch_verified(url, part, sha256, size, progress)


def _fetch_patiently(url: str, part: Path, size: int | None, progress: Progress) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _fetch_rest(url, part, size, progress)
        except _Cut as cut:
            if attempt == ATTEMPTS:
                raise _Failed(f"{cut} (at each of {ATTEMPTS} attempts)") from cut
        time.sleep(WAIT * 2 ** (attempt - 1))
    return None


def _fetch_rest(url: str, part: Path, size: int | None, progress: Progress) -> None:
    """Append what is missing to `part`, or start it again where the server can't resume."""
    have = _size(part)
    if have == size:
        return
    if have and (size is None or have > size):
        part.unlink()
        have = 0
    with _open(url, have) as response:
        resumed = response.status == 206
        done = have if resumed else 0
        if size is None and response.length is not None:
            size = done + response.length
        if response.length is not None and done + response.length != size:
            raise _Failed(f"the server has {done + response.length} bytes, expected {size}")
        with part.open("ab" if resumed else "wb") as file:
            while block := _read(response):
                done += len(block)
                if size is not None and done > size:
                    raise _Failed(f"the server sends more than the expected {size} bytes")
                file.write(block)
                progress(done, size or done)
    if size is not None and done < size:
        raise _Cut("the connection was cut")


def _open(url: str, start: int) -> HTTPResponse:
    headers = {"User-Agent": f"separator/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        reason = f"HTTP {error.code} {error.reason}"
        raise (_Cut if error.code in (408, 429) or error.code >= 500 else _Failed)(
            reason
        ) from error
    except URLError as error:
        raise _Failed(f"no connection ({error.reason}); check the network") from error
    except (OSError, HTTPException) as error:
        raise _Cut(f"the connection was cut ({error})") from error
    return response


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read(BLOCK)
    except (OSError, HTTPException) as error:
        raise _Cut(f"the connection was cut ({error})") from error


def _require_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ModelError(
            f"The download needs {megabytes(size)}, '{folder}' has {megabytes(free)} free. "
            "Free some space, or choose another folder with $SEPARATOR_CACHE."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _ignore(done: int, total: int) -> None:
    """Stand in for a progress callback."""
