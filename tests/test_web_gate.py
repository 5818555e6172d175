"""Who may come in: foreign names and pages, files that nobody sent, strangers at the log-in."""

import logging
import re
import socket
from pathlib import Path

import httpx
import pytest
from conftest import make_signal

from separator.audio.writer import AudioWriter
from separator.errors import ConfigError
from separator.web.settings import AppSettings

SECRET = "the server's own business"
SESSION = "abcdefgh"


@pytest.fixture(scope="module")
def server(tiny_models, tmp_path_factory):
    from separator.web.app import Server

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEPARATOR_MODELS", str(tiny_models))
        patch.setenv("SEPARATOR_CACHE", str(tmp_path_factory.mktemp("cache")))
        with Server(AppSettings(port=0, device="cpu")) as server:
            yield server


@pytest.fixture(scope="module")
def secret(tmp_path_factory) -> Path:
    """A file that the server may read, and nobody else."""
    path = tmp_path_factory.mktemp("secret") / "secret.txt"
    path.write_text(SECRET)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "song.flac"
    with AudioWriter(path, 44100, 2) as writer:
        writer.write(make_signal(4410, 44100))
    return path


@pytest.fixture
def browser(server):
    with httpx.Client(base_url=server.url, timeout=300) as client:
        yield client


def send(browser, file: Path) -> str:
    """Upload a file; return what the server calls it."""
    answer = browser.post("gradio_api/upload", files={"files": (file.name, file.read_bytes())})
    assert answer.status_code == 200, answer.text
    return answer.json()[0]


def data(path: str, **more: object) -> dict[str, object]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def requests_of_all_events(config, value):
    """Yield each way to hand a value to each event: address and body."""
    for event in config["dependencies"]:
        inputs = max(1, len(event["inputs"]))
        for place in range(inputs):
            values = [None] * inputs
            values[place] = value
            body = {"data": values, "fn_index": event["id"], "session_hash": SESSION}
            yield "gradio_api/queue/join", body
            yield "gradio_api/run/predict", body
            if event["api_name"]:
                for door in ("run", "api", "call"):
                    yield f"gradio_api/{door}/{event['api_name']}", body
                yield f"gradio_api/call/v2/{event['api_name']}", {"song": value}
        hidden = {"data": [None] * inputs, "fn_index": event["id"], "event_data": {"x": [value]}}
        yield "gradio_api/run/predict", hidden


@pytest.mark.parametrize("shape", ["plain", "listed", "nested", "url", "without meta"])
def test_no_event_takes_a_file_that_its_visitor_has_not_sent(server, browser, secret, shape):
    config = browser.get("config").json()
    assert len(config["dependencies"]) > 15
    value = {
        "plain": data(str(secret)),
        "listed": [data(str(secret))],
        "nested": {"value": {"deep": [[data(str(secret))]]}},
        "url": data("http://127.0.0.1:9/x.wav", url="http://127.0.0.1:9/x.wav"),
        "without meta": {"path": str(secret)},
    }[shape]
    for address, body in requests_of_all_events(config, value):
        answer = browser.post(address, json=body)
        assert answer.status_code == 403, (address, body, answer.text)
    kept = [path for path in server.service.root.rglob("*") if path.is_file()]
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "wrong",
    [
        "{up}/../../secret.txt",
        "/proc/self/environ",
        "/proc/self/fd/3",
        "{up}",
        "{file}/",
        ["{file}"],
    ],
)
def test_a_name_that_only_looks_like_an_upload_is_refused(server, browser, clip, wrong):
    uploaded = send(browser, clip)
    names = {"up": str(server.service.uploads.folder), "file": uploaded}
    path = [each.format(**names) for each in wrong] if isinstance(wrong, list) else wrong
    path = path.format(**names) if isinstance(path, str) else path
    for each in (data(path), data(uploaded, x=data(path))):
        body = {"data": [[each]], "session_hash": SESSION, "fn_index": 0}
        assert browser.post("gradio_api/queue/join", json=body).status_code == 403


def test_an_upload_is_its_senders_alone(server, clip):
    here = {"base_url": server.url, "timeout": 300}
    with httpx.Client(**here) as one, httpx.Client(**here) as other:
        for each in (one, other):
            each.get("")
        path = send(one, clip)
        body = {"data": [data(path), "tiny"], "session_hash": SESSION}
        assert other.post("gradio_api/call/separate", json=body).status_code == 403
        assert one.post("gradio_api/call/separate", json=body).status_code == 200
        send(other, clip)  # now both have
        assert other.post("gradio_api/call/separate", json=body).status_code == 200


def test_gradio_itself_copies_no_file_either(server, secret):
    """The second wall, if the first should have a hole."""
    from starlette.testclient import TestClient

    gradio = server.app.routes[-1].app
    client = TestClient(gradio)
    events = client.get("/config").json()["dependencies"]
    event = next(each for each in events if each["api_name"] == "take_to_batch")
    body = {"data": [[data(str(secret))]], "fn_index": event["id"], "session_hash": SESSION}
    answer = client.post("/gradio_api/run/predict", json=body)
    assert answer.status_code == 500
    kept = [path for path in server.service.root.rglob("*") if path.is_file()]
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("GET", "gradio_api/file=http://127.0.0.1:9/x"),
        ("GET", "gradio_api/file=https:%2F%2Fexample.org/x"),
        ("GET", "gradio_api/proxy=https://example.hf.space/x"),
        ("GET", "gradio_api/deep_link?session_hash=x"),
        ("GET", "gradio_api/file/etc/passwd"),
        ("GET", "gradio_api/dev/reload"),
        ("GET", "monitoring/summary"),
        ("POST", "gradio_api/component_server"),
        ("POST", "gradio_api/process_recording"),
        ("POST", "gradio_api/vibe-edit"),
        ("POST", "gradio_api/stream/x"),
        ("PUT", "gradio_api/upload"),
        ("OPTIONS", "config"),
    ],
)
def test_what_nobody_needs_does_not_exist(browser, method, address):
    assert browser.request(method, address).status_code == 404


def test_requests_that_cannot_be_looked_into_are_refused(browser):
    address = "gradio_api/queue/join"
    assert browser.post(address, content=b"path=/etc/passwd").status_code == 400
    assert browser.post(address, content=b"[" * 100_000).status_code == 400
    assert browser.post(address, content=b" " * 4_000_001).status_code == 413


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "192.0.2.1", "[::"]
)
def test_a_foreign_name_for_this_computer_is_refused(browser, host):
    for address in ("", "config", "stems-static/player.js"):
        answer = browser.get(address, headers={"Host": host})
        assert answer.status_code == 403 and "--allowed-host" in answer.json()["detail"]


def test_names_of_this_computer_are_its_own(browser, server):
    port = httpx.URL(server.url).port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "app.localhost"):
        assert browser.get("config", headers={"Host": host}).status_code == 200, host


def test_pages_of_other_places_may_send_nothing(browser, clip, server):
    port = httpx.URL(server.url).port
    own = f"http://127.0.0.1:{port}"
    foreign = ["https://evil.example", "http://127.0.0.1:9", "null", f"http://localhost:{port}"]
    for origin in foreign:
        headers = {"Origin": origin}
        files = {"files": ("a.flac", clip.read_bytes())}
        assert browser.post("gradio_api/upload", files=files, headers=headers).status_code == 403
        assert browser.get("config", headers=headers).status_code == 403
        assert browser.post("login", headers=headers).status_code == 403
    files = {"files": ("a.flac", clip.read_bytes())}
    answer = browser.post("gradio_api/upload", files=files, headers={"Origin": own})
    assert answer.status_code == 200


@pytest.fixture
def app_with(tiny_models, monkeypatch):
    """Return a function that builds an app with settings, and a client for it."""
    from starlette.testclient import TestClient

    from separator.web.app import build_app
    from separator.web.service import Service

    monkeypatch.setenv("SEPARATOR_MODELS", str(tiny_models))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # so that it is put back afterwards
    services = []

    def build(base_url: str = "http://127.0.0.1", **settings):
        services.append(Service(AppSettings(device="cpu", **settings)))
        client = TestClient(build_app(services[-1]), base_url, raise_server_exceptions=False)
        client.uploads = services[-1].uploads
        return client

    yield build
    for service in services:
        service.close()


def test_a_proxy_shows_the_app_under_its_own_name(app_with):
    client = app_with("http://music.example.org", allowed_hosts=("music.example.org",))
    assert client.get("/config").status_code == 200
    seen = {"Host": "127.0.0.1:7860", "Origin": "https://music.example.org"}  # Host was rewritten
    body = {"data": [], "session_hash": SESSION, "fn_index": 0}
    assert client.post("/gradio_api/cancel", json=body, headers=seen).status_code != 403
    assert client.get("/config", headers={"Host": "evil.example"}).status_code == 403


def test_an_app_that_is_open_to_a_network_has_any_name(app_with):
    client = app_with("http://studio.lan:7860", host="0.0.0.0")
    assert client.get("/config").status_code == 200
    assert client.get("/config", headers={"Origin": "http://evil.example"}).status_code == 403


def test_addresses_of_the_page_stay_below_a_proxys_path(app_with):
    """nginx's `location /separator/ { proxy_pass http://127.0.0.1:7860/; }`."""
    client = app_with("http://localhost", root_path="/separator")
    page = client.get("/")  # as the proxy asks for it
    assert "/separator" in page.headers["set-cookie"]
    assets = re.findall(r'(?:src|href)="([^"]*stems-static/[^"]+)"', page.text.replace("\\", ""))
    assert len(assets) >= 4
    for asset in assets:
        address = httpx.URL("http://localhost/separator/").join(asset).path
        assert client.get(address.removeprefix("/separator")).status_code == 200, asset
        assert client.get(address).status_code == 200, "a proxy may leave the path as it is"
    assert client.get("/config").json()["root"].endswith("/separator")
    for script in ("player", "recorder"):
        assert '"/stems' not in client.get(f"/stems-static/{script}.js").text


@pytest.mark.parametrize("path", ["separator", "/separator/", "https://x/separator", "/a b"])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(ConfigError, match="root path"):
        AppSettings(root_path=path)


@pytest.mark.parametrize("name", ["https://music.example.org", "music.example.org:80", "a/b", ""])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ConfigError, match="host"):
        AppSettings(allowed_hosts=(name,))


def test_one_visitor_leaves_only_so_much(app_with, clip):
    size = clip.stat().st_size
    client = app_with(max_held=5 * size // 2)
    for name in ("a", "b"):
        files = {"files": (f"{name}.flac", clip.read_bytes() + name.encode())}
        answer = client.post("/gradio_api/upload", files=files)
        assert answer.status_code == 200
    files = {"files": ("c.flac", clip.read_bytes() + b"c")}
    refused = client.post("/gradio_api/upload", files=files)
    assert refused.status_code == 413 and "Your uploads" in refused.text
    last = Path(answer.json()[0])
    client.uploads.use(last)  # what a job has a copy of makes room
    assert client.post("/gradio_api/upload", files=files).status_code == 200
    assert not last.exists()


CLOSED = [
    ("GET", "/config"),
    ("GET", "/openapi.json"),
    ("GET", "/gradio_api/openapi.json"),
    ("GET", "/gradio_api/info"),
    ("GET", "/gradio_api/heartbeat/x"),
    ("GET", "/gradio_api/queue/data?session_hash=x"),
    ("GET", "/gradio_api/file=x"),
    ("GET", "/stems/x/player.json"),
    ("GET", "/stems.zip"),
    ("POST", "/gradio_api/cancel"),
    ("POST", "/gradio_api/reset"),
    ("POST", "/gradio_api/upload"),
    ("POST", "/gradio_api/queue/join"),
    ("POST", "/gradio_api/run/predict"),
]


def test_everything_but_the_log_in_wants_one(app_with, caplog):
    client = app_with(user="me", password="secret")
    for method, address in CLOSED:
        answer = client.request(method, address, json={"data": []} if method == "POST" else None)
        assert answer.status_code == 401, address
    assert client.get("/").status_code == 200
    wrong = {"username": "me", "password": "guess"}
    with caplog.at_level(logging.WARNING, "separator.web.login"):
        assert client.post("/login", data=wrong).status_code == 400
    assert "Wrong user or password from testclient" in caplog.text and "guess" not in caplog.text
    assert client.post("/login", data={**wrong, "password": "secret"}).status_code == 200
    for method, address in CLOSED:
        if "heartbeat" not in address:  # it never ends
            answer = client.request(method, address, json={"x": 1} if method == "POST" else None)
            assert answer.status_code != 401, address


def test_each_wrong_guess_makes_the_next_one_wait_longer():
    import asyncio

    from separator.web.login import Login, TooManyAttempts

    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)
        await asyncio.sleep(0)

    async def guess(login: Login, address: str, right: bool) -> None:
        async with login.attempt(address) as attempt:
            attempt.succeeded = right

    async def attack() -> int:
        login = Login(pause)
        for _ in range(6):
            await guess(login, "192.0.2.1", False)
        await guess(login, "192.0.2.2", False)  # others don't wait
        await guess(login, "192.0.2.1", True)
        await guess(login, "192.0.2.1", True)
        many = [guess(login, "192.0.2.3", False) for _ in range(20)]
        answers = await asyncio.gather(*many, return_exceptions=True)
        return sum(isinstance(answer, TooManyAttempts) for answer in answers)

    refused = asyncio.run(attack())
    assert waited[:9] == [0, 0, 0, 1, 2, 4, 0, 8, 0]
    assert refused == 15, "a crowd doesn't guess side by side"


def test_uploads_that_stall_or_grow_old_are_deleted(tmp_path):
    import os
    import time

    from separator.web.uploads import Uploads, Visitor

    uploads = Uploads(tmp_path, 1000, 10)
    visitor = Visitor("t", "a")
    (tmp_path / "x").mkdir()
    old, new, half = tmp_path / "x" / "old", tmp_path / "x" / "new", tmp_path / "tmphalf"
    for path in (old, new, half):
        path.write_text("1")
    uploads.keep(visitor, [str(old), str(new)])
    hour = time.time() - 3600
    for path in (old, half):
        os.utime(path, (hour, hour))
    uploads.expire(100)
    assert not old.exists() and not half.exists() and new.exists()
    assert not uploads.owns(visitor, str(old)) and uploads.owns(visitor, str(new))


def test_the_port_is_open_when_the_address_is_known(tiny_models, monkeypatch):
    from separator.web.app import Server

    monkeypatch.setenv("SEPARATOR_MODELS", str(tiny_models))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    with Server(AppSettings(port=0, device="cpu")) as server:
        url = httpx.URL(server.url)
        socket.create_connection((url.host, url.port), timeout=300).close()
        assert httpx.get(url, timeout=300).status_code == 200
