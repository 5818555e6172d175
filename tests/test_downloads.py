"""Downloads against a local server that misbehaves on demand."""

import errno
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from separator.checkpoints.kinds import check_kind
from separator.errors import Cancelled, ModelError
from separator.zoo import downloads
from separator.zoo.cards import parse_card
from separator.zoo.downloads import fetch
from separator.zoo.weights import download

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serve CONTENT; the path of the address chooses the fault."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []  # (path, Range)
        self.tag = ""  # the version of the file
        self.location = ""  # of a redirect
        self.ended = threading.Event()

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
        if name == "silent":  # until the test ends
            self.server.ended.wait()
            return
        if name == "elsewhere":
            self.send_response(302)
            self.send_header("Location", self.server.location)
            self.end_headers()
            return
        if name == "range" and wanted:
            self.send_error(416)
            return
        content = {"wrong": CONTENT[::-1], "short": CONTENT[:-7]}.get(name, CONTENT)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        start = 0 if name == "stubborn" else start
        if self.server.tag and self.headers.get("If-Range", self.server.tag) != self.server.tag:
            start = 0  # another version by now
        self.send_response(206 if start else 200)
        if name != "endless":
            self.send_header("Content-Length", str(len(content) - start))
        if start:
            begin = 0 if name == "shifted" else start
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        if name == "page":
            self.send_header("Content-Type", "text/html; charset=utf-8")
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
        server.ended.set()
        server.shutdown()


def get(
    server: Server, target: Path, *paths: str, progress: downloads.ByteProgress | None = None
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
    for thread in threading.enumerate():
        if thread.name == "download":  # on a busy machine it takes its time to end
            thread.join(300)
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


# Lies of a server


def test_a_resumed_file_is_the_same_version(server: Server, tmp_path: Path) -> None:
    """Nothing is published of it, so the server's own mark tells."""
    target = tmp_path / "w.bin"
    server.tag = '"one"'
    begin = {"sha256": None, "size": len(CONTENT)}
    with pytest.raises(ModelError, match="connection was cut"):
        fetch([server.url("stall")], target, **begin)
    count = len(server.requests)
    assert fetch([server.url("good")], target, **begin).read_bytes() == CONTENT
    assert server.requests[count] == ("/good", f"bytes={len(CONTENT) // 2}-")
    target.unlink()
    with pytest.raises(ModelError, match="connection was cut"):
        fetch([server.url("stall")], target, **begin)
    part = target.with_name("w.bin.part")
    part.write_bytes(b"x" * (len(CONTENT) // 2))  # as an older version may have been
    server.tag = '"two"'
    assert fetch([server.url("good")], target, **begin).read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["w.bin"]


def test_without_hash_and_mark_nothing_is_resumed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.bin.part").write_bytes(b"x" * 5000)
    fetch([server.url("good")], tmp_path / "w.bin", sha256=None, size=len(CONTENT))
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert server.requests == [("/good", None)]


@pytest.mark.parametrize("lie", ["shifted", "range"])
def test_another_part_than_the_missing_one_starts_anew(
    server: Server, tmp_path: Path, lie: str
) -> None:
    (tmp_path / "w.bin.part").write_bytes(CONTENT[:5000])
    assert get(server, tmp_path / "w.bin", lie, "good").read_bytes() == CONTENT
    assert server.requests[0] == (f"/{lie}", "bytes=5000-")


def test_a_web_page_is_no_file(server: Server, tmp_path: Path) -> None:
    assert "sent a web page instead" in refused(server, tmp_path / "w.bin", "page")
    assert not (tmp_path / "w.bin.part").exists()
    assert get(server, tmp_path / "w.bin", "page", "good").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("file:///etc/passwd", "is not allowed"),
        ("ftp://127.0.0.1/w", "no web address"),
        ("http://127.0.0.1:port/w", "no valid address|no connection"),
        ("http://", "infinite loop|no valid address|no connection"),
    ],
)
def test_only_web_addresses_are_followed(
    server: Server, tmp_path: Path, location: str, problem: str
) -> None:
    server.location = location
    assert re.search(problem, refused(server, tmp_path / "w.bin", "elsewhere"))
    server.location = server.url("good")
    assert get(server, tmp_path / "w.bin", "elsewhere").read_bytes() == CONTENT


def test_a_wish_to_stop_is_heard_while_a_server_is_silent(server: Server, tmp_path: Path) -> None:
    began = time.monotonic()
    asked: list[float] = []

    def stop(done: int, total: int) -> None:
        if server.requests:
            asked.append(time.monotonic())
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        get(server, tmp_path / "w.bin", "silent", progress=stop)
    assert time.monotonic() - asked[0] < downloads.TIMEOUT / 2  # it need not run out
    assert asked[0] > began


def test_a_trickle_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**9, 100))  # a hundred seconds a look
    monkeypatch.setattr(downloads.time, "monotonic", lambda: next(clock))
    message = refused(server, tmp_path / "w.bin", "good")
    assert "sends less than 1000 bytes a second" in message


def test_what_has_no_hash_is_the_same_file_each_time(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path))
    fields = {
        "name": "mine",
        "description": "mine",
        "network": "bs_roformer",
        "stems": ["vocals"],
        "segment": 8.0,
        "licence": "not stated",
        "weights": {"urls": [server.url("good")], "format": "msst"},
    }
    card = parse_card(fields, "mine")
    with pytest.raises(ModelError, match="it is no file of weights: it begins with"):
        download(card)
    monkeypatch.setattr("test_downloads.CONTENT", tensors(tmp_path, 1.0))
    path = download(card)
    assert path.read_bytes() == CONTENT
    path.unlink()
    assert download(card).read_bytes() == CONTENT
    path.unlink()
    monkeypatch.setattr("test_downloads.CONTENT", tensors(tmp_path, 2.0))
    with pytest.raises(ModelError, match="another file than the first time"):
        download(card)


def tensors(folder: Path, value: float) -> bytes:
    torch.save({"a": torch.full((100,), value)}, folder / "made.pt")
    return (folder / "made.pt").read_bytes()


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", ["torch", "torch, old", "safetensors"])
def test_kinds_of_weights_are_known_by_their_content(tmp_path: Path, kind: str, cut: bool) -> None:
    path = tmp_path / "file"
    if kind == "safetensors":
        save_file({"a": torch.ones(100)}, path)
    else:
        torch.save({"a": torch.ones(100)}, path, _use_new_zipfile_serialization=kind == "torch")
    if not cut:
        assert check_kind(path) == kind
        return
    path.write_bytes(path.read_bytes()[:-50])
    if kind != "torch, old":  # its length stands nowhere
        with pytest.raises(ModelError, match=r"cut short|damaged"):
            check_kind(path)
