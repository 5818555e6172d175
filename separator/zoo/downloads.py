"""Download a file: resumed where it was cut, verified before first use, whole or not at all.

```
target.part  ->  sha256 as expected?  ->  rename to target
     ^ kept when the connection ends early; the next run asks for the rest (HTTP Range)
```
Two processes that want one file don't meet: the second waits and finds it ready. Bytes arrive in
a thread of their own, so that a wish to stop is heard while a server is silent.

What is resumed is the same file: by its hash in the end, or by the version (ETag) that the server
named at first. What has no hash must at least be a file of its kind before it gets its name.
"""

from __future__ import annotations

import queue
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPMessage, HTTPResponse, InvalidURL
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from separator.errors import ModelError
from separator.version import __version__
from separator.words import megabytes, one_line

ATTEMPTS = 5
WAIT = 0.5  # seconds before the second attempt, doubled before each further one
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 20
LEAST = 1000  # bytes a second, after the first minute: slower servers are given up
LARGEST = 50_000_000_000  # bytes, more than any model has
LISTEN = 0.2  # seconds between two looks at whether the caller still wants the file
_PAGES = ("text/html", "application/xhtml+xml")

ByteProgress = Callable[[int, int], None]  # bytes that are there, bytes in total


class _Cut(Exception):
    """The connection ended early: worth another attempt."""


class _Failed(Exception):
    """This address doesn't give the file."""


class _Stopped(Exception):
    """The caller doesn't want the file any more."""


@dataclass
class _Job:
    """A download at work in its thread, as its caller sees it.

    Attributes:
        check: Raises a `ModelError` for a file that is none of its kind.
        reports: Bytes that are there, and in total, after each block; None in the end.
    """

    urls: Sequence[str]
    sha256: str | None
    size: int | None
    check: Callable[[Path], object]
    reports: queue.Queue[tuple[int, int] | None] = field(default_factory=lambda: queue.Queue(1))
    error: BaseException | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    began: float = field(default_factory=lambda: time.monotonic())
    response: HTTPResponse | None = None

    def run(self, part: Path) -> None:
        """Fetch, and keep the error for the caller."""
        try:
            _fetch_from_any(self, part)
        except BaseException as error:
            self.error = error
        with suppress(_Stopped):
            self._report(None)

    def _report(self, state: tuple[int, int] | None) -> None:
        while not self.stop.is_set():
            with suppress(queue.Full):
                return self.reports.put(state, timeout=LISTEN)
        raise _Stopped

    def progress(self, done: int, total: int) -> None:
        """Report what has arrived; end where nobody waits for it, or it comes too slowly."""
        self._report((done, total))
        if done > LARGEST:
            raise _Failed(f"the server sends more than {megabytes(LARGEST)}")
        if time.monotonic() - self.began > 60 + done / LEAST:
            raise _Failed(f"the server sends less than {LEAST} bytes a second")

    def pause(self, seconds: float) -> None:
        """Wait, unless nobody does any more."""
        if self.stop.wait(seconds):
            raise _Stopped

    def cancel(self) -> None:
        """End soon: what is being read is closed."""
        self.stop.set()
        if self.response is not None:
            self.response.close()


def fetch(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str | None,
    size: int | None,
    progress: ByteProgress | None = None,
    check: Callable[[Path], object] = bool,
) -> Path:
    """Download `target` from the first of `urls` that gives the right bytes.

    Args:
        urls: Addresses (http, https) of the same file, tried in order.
        target: Place where the file will appear, whole and verified; left as it is if it exists.
        sha256: Expected hash, in lower-case hexadecimal digits, or the first of them; None where
            it isn't known.
        size: Expected number of bytes; None where it isn't known, then nothing is resumed.
        progress: Called several times a second; what it raises ends the download within one, to
            be resumed later.
        check: Raises a `ModelError` for a file that can't be what it should be.

    Raises:
        ModelError: No address gives the right bytes, or the disk doesn't take them.
    """
    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.is_file():
                part = target.with_name(f"{target.name}.part")
                _wait_for(_Job(urls, sha256, size, check), part, progress or _ignore)
                part.replace(target)
                _forget(part)
    except OSError as error:  # the network's errors are handled inside: this is the disk's
        raise ModelError(
            f"Can't write '{target}': {error.strerror or error}. Free some space, or choose "
            "another folder with $SEPARATOR_CACHE."
        ) from error
    return target


def _wait_for(job: _Job, part: Path, progress: ByteProgress) -> None:
    """Run a job in a thread; report what arrives, and pass on a wish to stop."""
    thread = threading.Thread(target=job.run, args=(part,), name="download", daemon=True)
    thread.start()
    state: tuple[int, int] | None = (0, job.size or 0)
    try:
        while state is not None:
            progress(*state)
            with suppress(queue.Empty):
                state = job.reports.get(timeout=LISTEN)
    except BaseException:
        job.cancel()
        thread.join(timeout=LISTEN)  # what has arrived is on the disk then, for the next try
        raise
    if job.error is not None:
        raise job.error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits, read in blocks."""
    import pooch

    digest: str = pooch.file_hash(str(path), alg="sha256")
    return digest


def _fetch_from_any(job: _Job, part: Path) -> None:
    _require_space(part.parent, (job.size or 0) - _size(part))
    failures = []
    for url in job.urls:
        try:
            _fetch_verified(job, url, part)
        except _Failed as failure:
            failures.append(f"{url}: {failure}")
        else:
            return
    arrived = _size(part)
    resume = f" {megabytes(arrived)} of {megabytes(job.size)} arrived; run again to resume."
    name = part.name.removesuffix(".part")
    raise ModelError(
        f"Can't download '{name}' from {'; '.join(failures)}."
        f"{resume if arrived and job.size else ''}"
    )


def _fetch_verified(job: _Job, url: str, part: Path) -> None:
    resumed = part.exists()
    _fetch_patiently(job, url, part)
    problem = _problem(job, part)
    if problem is None:
        return
    _forget(part)
    if not resumed:
        raise _Failed(f"wrong content, {problem}; it was removed")
    # The wrong bytes may be those of an earlier run: once more from the start.
    _fetch_verified(job, url, part)


def _problem(job: _Job, part: Path) -> str | None:
    """Return what is wrong with a whole download."""
    if job.sha256 and not (found := sha256_of(part)).startswith(job.sha256):
        return f"expected sha256 {job.sha256}, got {found}"
    try:
        job.check(part)
    except ModelError as error:
        return str(error).rstrip(".")
    return None


def _fetch_patiently(job: _Job, url: str, part: Path) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _fetch_rest(job, url, part)
        except _Cut as cut:
            if attempt == ATTEMPTS:
                raise _Failed(f"{cut} (at each of {ATTEMPTS} attempts)") from cut
        job.pause(WAIT * 2 ** (attempt - 1))
    return None


def _fetch_rest(job: _Job, url: str, part: Path) -> None:
    """Append what is missing to `part`, or start it again where the server can't resume."""
    have, mark = _size(part), _mark(part)
    if have == job.size:
        return
    # What nothing can be held against in the end is resumed only if the file is still the same.
    if have and (job.size is None or have > job.size or not (job.sha256 or mark)):
        _forget(part)
        have = 0
    with _open(url, have, mark) as response:
        job.response = response
        resumed = response.status == 206
        if resumed and not _continues(response, have, job.size):
            _forget(part)
            raise _Cut("the server sent another part than the one that was missing")
        if response.headers.get_content_type() in _PAGES:
            _forget(part)
            raise _Failed("the server sent a web page instead of the file")
        done = have if resumed else 0
        size = job.size
        if size is None and response.length is not None:
            size = done + response.length
        if response.length is not None and done + response.length != size:
            raise _Failed(f"the server has {done + response.length} bytes, expected {size}")
        if not resumed:
            _mark_path(part).write_text(_strong_mark(response))
        with part.open("ab" if resumed else "wb") as file:
            while block := _read(response):
                done += len(block)
                if size is not None and done > size:
                    raise _Failed(f"the server sends more than the expected {size} bytes")
                job.progress(done, size or done)
                file.write(block)
    if size is not None and done < size:
        raise _Cut("the connection was cut")


def _continues(response: HTTPResponse, have: int, size: int | None) -> bool:
    """Tell whether a partial answer begins where the file ends, and is part of the same file."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != have:
        return False
    return size is None or found[2] in ("*", str(size))


def _mark_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _mark(part: Path) -> str:
    """Return what the server called the version of the file that was begun, if it did."""
    path = _mark_path(part)
    return path.read_text() if part.exists() and path.exists() else ""


def _strong_mark(response: HTTPResponse) -> str:
    mark: str = response.headers.get("ETag", "")
    return "" if mark.startswith("W/") else mark


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _mark_path(part).unlink(missing_ok=True)


class _Redirects(HTTPRedirectHandler):
    """Redirects to web addresses alone."""

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> Request | None:
        """Follow to http and https; nothing else is fetched."""
        if not newurl.startswith(("http://", "https://")):
            raise _Failed(f"the server points to '{newurl}', which is no web address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, start: int, mark: str) -> HTTPResponse:
    headers = {"User-Agent": f"separator/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if mark:
            headers["If-Range"] = mark
    try:
        opener = build_opener(_Redirects)
        response: HTTPResponse = opener.open(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        reason = f"HTTP {error.code} {one_line(error.reason)}"
        raise (_Cut if error.code in (408, 429) or error.code >= 500 else _Failed)(
            reason
        ) from error
    except URLError as error:
        raise _Failed(f"no connection ({error.reason}); check the network") from error
    except (InvalidURL, ValueError) as error:
        raise _Failed(f"no valid address ({error})") from error
    except (OSError, HTTPException) as error:
        raise _Cut(f"the connection was cut ({error})") from error
    return response


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read(BLOCK)
    except (OSError, HTTPException, ValueError) as error:  # closed by whoever cancelled, too
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
