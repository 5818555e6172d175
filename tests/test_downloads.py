"""Downloads against a local server that misbehaves on demand."""

import errno
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from separator.errors import Cancelled, ModelError
from separator.zoo import downloads
from separator.zoo.downloads import fetch

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serve CONTENT; the path of the address chooses the fault."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []  # (path, Range)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet: some tests hang up in the middle of an answer."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        name = self.path.strip("/")
        if name == "missing":
            self.send_error(404)
            return
        if name == "busy" and len(self.server.requests) < 3:
            self.send_error(503)
            return
        content = {"wrong": CONTENT[::-1], "short": CONTENT[:-7]}.get(name, CONTENT)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        start = 0 if name == "stubborn" else start
        self.send_response(206 if start else 200)
        if name != "endless":
            self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(self.body(name, content[start:]))

    def body(self, name: str, content: bytes) -> bytes:
        if name == "cut":  # a third of the file at a time
            return content[: len(CONTENT) // 3 + 1]
        if name == "stall":  # never past the middle
            return content[: max(0, len(content) - len(CONTENT) // 2)]
        if name == "stubborn" and len(self.server.requests) < 2:
            return content[:1000]
        return content * 2 if name == "endless" else content

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "WAIT", 0.001)
    monkeypatch.setattr(downloads, "BLOCK", 10_000)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


def get(
    server: Server, target: Path, *paths: str, progress: downloads.Progress | None = None
) -> Path:
    urls = [server.url(path) for path in paths]
    return fetch(urls, target, sha256=SHA256, size=len(CONTENT), progress=progress)


def refused(server: Server, target: Path, *paths: str) -> str:
    with pytest.raises(ModelError) as caught:
        get(server, target, *paths)
    message = str(caught.value)
    assert "\n" not in message
    assert not target.exists()
    return message


def test_whole_file_and_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = get(
        server, tmp_path / "new" / "w.bin", "good", progress=lambda *state: seen.append(state)
    )
    assert target.read_bytes() == CONTENT
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not target.with_name("w.bin.part").exists()
    get(server, target, "good")
    assert len(server.requests) == 1  # what is there is not fetched again


def test_a_cut_download_is_resumed_where_it_ended(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path / "w.bin", "cut").read_bytes() == CONTENT
    starts = [wanted for _, wanted in server.requests]
    third = len(CONTENT) // 3 + 1
    assert starts == [None, f"bytes={third}-", f"bytes={2 * third}-"]


def test_a_server_that_cannot_resume_starts_again(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path / "w.bin", "stubborn").read_bytes() == CONTENT
    assert server.requests[1] == ("/stubborn", "bytes=1000-")


def test_a_connection_that_stays_cut_says_how_much_arrived(server: Server, tmp_path: Path) -> None:
    message = refused(server, tmp_path / "w.bin", "stall")
    assert "connection was cut" in message
    assert "0.5 MB of 1.0 MB arrived; run again to resume" in message
    assert len(server.requests) == downloads.ATTEMPTS
    assert get(server, tmp_path / "w.bin", "good").read_bytes() == CONTENT
    assert server.requests[-1] == ("/good", f"bytes={len(CONTENT) // 2}-")


def test_wrong_bytes_are_refused_and_removed(server: Server, tmp_path: Path) -> None:
    message = refused(server, tmp_path / "w.bin", "wrong")
    assert f"expected sha256 {SHA256}" in message
    assert hashlib.sha256(CONTENT[::-1]).hexdigest() in message
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_wrong_beginning_does_not_spoil_the_next_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.bin.part").write_bytes(b"x" * 5000)
    assert get(server, tmp_path / "w.bin", "good").read_bytes() == CONTENT
    (tmp_path / "v.bin.part").write_bytes(b"x" * (len(CONTENT) + 1))
    assert get(server, tmp_path / "v.bin", "good").read_bytes() == CONTENT


@pytest.mark.parametrize("broken", ["missing", "wrong", "short", "stall", "endless"])
def test_mirrors_are_tried_in_order(server: Server, tmp_path: Path, broken: str) -> None:
    assert get(server, tmp_path / "w.bin", broken, "good").read_bytes() == CONTENT
    assert server.requests[0][0] == f"/{broken}"


def test_the_faults_of_all_mirrors_are_told(server: Server, tmp_path: Path) -> None:
    message = refused(server, tmp_path / "w.bin", "missing", "short")
    assert "HTTP 404" in message
    assert f"the server has {len(CONTENT) - 7} bytes, expected {len(CONTENT)}" in message


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path / "w.bin", "busy").read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_no_network(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no connection .*check the network"):
        fetch(["http://127.0.0.1:1/w"], tmp_path / "w.bin", sha256=SHA256, size=len(CONTENT))


def test_a_cancelled_download_is_resumed(server: Server, tmp_path: Path) -> None:
    def cancel(done: int, total: int) -> None:
        if done > total / 2:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        get(server, tmp_path / "w.bin", "good", progress=cancel)
    assert not (tmp_path / "w.bin").exists()
    assert get(server, tmp_path / "w.bin", "good").read_bytes() == CONTENT
    assert server.requests[-1][1] is not None


def test_a_disk_without_space(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"needs 1000000000000\.0 MB.* free"):
        fetch([server.url("good")], tmp_path / "w.bin", sha256=SHA256, size=10**18)
    assert server.requests == []

    def full(done: int, total: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ModelError, match=r"No space left on device\. Free some space"):
        get(server, tmp_path / "w.bin", "good", progress=full)


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match=r"Can't write .*SEPARATOR_CACHE"):
        get(server, tmp_path / "file" / "w.bin", "good")


def test_two_at_once_fetch_one_file(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "w.bin"
    threads = [threading.Thread(target=get, args=(server, target, "cut")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 3  # one download, in its three pieces


@pytest.mark.parametrize(
    ("sha256", "size", "wrong", "message"),
    [
        (SHA256[:8], None, "wrong", f"expected sha256 {SHA256[:8]}, got"),
        (SHA256[:8], None, "endless", f"expected sha256 {SHA256[:8]}, got"),
        (None, len(CONTENT), "short", f"expected {len(CONTENT)}"),
        (SHA256, None, "stall", "connection was cut"),
    ],
)
def test_what_is_known_of_a_file_is_checked(
    server: Server, tmp_path: Path, sha256: str, size: int, wrong: str, message: str
) -> None:
    target = tmp_path / "w.bin"
    with pytest.raises(ModelError, match=message):
        fetch([server.url(wrong)], target, sha256=sha256, size=size)
    assert not target.exists()
    seen: list[tuple[int, int]] = []
    fetch(
        [server.url("good")], target, sha256=sha256, size=size, progress=lambda *s: seen.append(s)
    )
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
