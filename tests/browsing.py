"""What the tests in a real browser share: Chromium, headless, and the app with tiny models."""

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from conftest import make_signal

from separator.audio.writer import AudioWriter
from separator.zoo import downloads

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="the program chromium is not installed"),
]

RATE = 44100
PATIENCE = 300_000  # milliseconds; only a machine that does much else needs them
FLAGS = [  # besides those of Playwright, which keep Chromium from talking to anybody
    "--disable-gpu",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]


class Weights(ThreadingHTTPServer):
    """Serve the weights of a model: half of them at once, the rest when `rest` is set."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), WeightsHandler)
        self.content = content
        self.rest = threading.Event()


class WeightsHandler(BaseHTTPRequestHandler):
    server: Weights

    def do_GET(self) -> None:
        content = self.server.content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.server.rest.wait(PATIENCE / 1000)
        self.wfile.write(content[len(content) // 2 :])

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def weights(tiny_models) -> Iterator[Weights]:
    with Weights((tiny_models / "tiny.safetensors").read_bytes()) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.rest.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def models(tiny_models, weights, tmp_path_factory) -> Path:
    """A folder with `tiny`, its `twin`, `remote`, the same on the network, and an ensemble."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_models, folder, dirs_exist_ok=True)
    card = yaml.safe_load((folder / "tiny.yaml").read_text())
    (folder / "twin.yaml").write_text(yaml.safe_dump({**card, "name": "twin"}))
    ensemble = {key: card[key] for key in ("description", "stems", "licence")}
    members = [{"model": "tiny"}, {"model": "twin", "overlap": 0.5}]
    both = {"name": "both", "members": members, **ensemble}
    (folder / "both.yaml").write_text(yaml.safe_dump(both))
    card["weights"] |= {"urls": [f"http://127.0.0.1:{weights.server_address[1]}/w.safetensors"]}
    del card["weights"]["file"]
    (folder / "remote.yaml").write_text(yaml.safe_dump({**card, "name": "remote"}))
    return folder


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    from separator.web.app import Server
    from separator.web.settings import AppSettings

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEPARATOR_MODELS", str(models))
        patch.setenv("SEPARATOR_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("SEPARATOR_OFFLINE", raising=False)
        patch.setattr(downloads, "BLOCK", 4096)  # so that small weights come in many pieces
        with Server(AppSettings(port=0, device="cpu")) as server:
            yield server


@pytest.fixture(scope="module")
def chromium():
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=FLAGS, timeout=PATIENCE
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(server, chromium):
    """Return a function that opens the app in a browser of its own."""
    contexts = []

    def open_(**options):
        options = {"viewport": {"width": 1280, "height": 860}, **options}
        context = chromium.new_context(**options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(server.url)
        page.wait_for_selector("#separate")
        page.locator("#model label").filter(has_text="tiny").click()
        return page

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    """A folder with two songs of six seconds, a long one, and a text."""
    folder = tmp_path_factory.mktemp("songs")
    for name, seconds, rate in (("one", 6, RATE), ("two", 6, RATE), ("long", 900, 8000)):
        with AudioWriter(folder / f"{name}.flac", rate, 2) as writer:
            writer.write(make_signal(seconds * rate, rate))
    (folder / "text.wav").write_text("not a song")
    return folder


def choose(page, selector: str, model: str) -> None:
    """Choose a model in a list, unless it is chosen."""
    field = page.locator(f"{selector} input")
    if field.input_value() != model:
        field.fill(model)
        page.locator(f"[role=option][aria-label='{model}']:visible").first.click()
        playwright_api.expect(field).to_have_value(model, timeout=PATIENCE)
        field.blur()


def upload(page, selector: str, *files: Path) -> None:
    page.set_input_files(f"{selector} input[type=file]", files)
    # names are seen while the files are on their way, links only once they have arrived
    page.locator(f"{selector} a[href*='file=']").nth(len(files) - 1).wait_for()


def separate(page, file: Path):
    """Separate a file and return the player's locator."""
    upload(page, "#song", file)
    page.click("#separate")
    player = page.locator("#player stem-player")
    player.locator(".row").first.wait_for()
    return player


def engine(page, expression: str):
    return page.evaluate(f"document.querySelector('stem-player').engine.{expression}")


def idle(server) -> None:
    """Wait until no job runs any more."""
    pause = threading.Event()
    for _ in range(PATIENCE // 50):
        if not server.service.queue.running:
            return
        pause.wait(0.05)
    raise AssertionError("the job goes on")


def loudness_is(page, condition: str) -> None:
    """Wait until what is heard fulfils a condition on its level."""
    page.wait_for_function(f"document.querySelector('stem-player').engine.loudness {condition}")
