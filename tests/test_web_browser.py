"""The web app in a real browser: Chromium, headless, with tiny models. Nothing here is timed."""

import pickle
import shutil
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from conftest import make_signal

from separator import downloads
from separator.audio import AudioWriter

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the program chromium is not installed")

RATE = 44100
PATIENCE = 180_000  # milliseconds; only a machine that does much else needs them
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]
TABS = {
    "Separate": "#separate",
    "Batch": "#batch-run",
    "Compare": "#compare-run",
    "Models": "#zoo-get",
}


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
    """A folder with `tiny`, its `twin`, and `remote`, the same model on the network."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_models, folder, dirs_exist_ok=True)
    card = yaml.safe_load((folder / "tiny.yaml").read_text())
    (folder / "twin.yaml").write_text(yaml.safe_dump({**card, "name": "twin"}))
    card["weights"] |= {"urls": [f"http://127.0.0.1:{weights.server_address[1]}/w.safetensors"]}
    del card["weights"]["file"]
    (folder / "remote.yaml").write_text(yaml.safe_dump({**card, "name": "remote"}))
    return folder


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    from separator.web.app import Server
    from separator.web.settings import Settings

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEPARATOR_MODELS", str(models))
        patch.setenv("SEPARATOR_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("SEPARATOR_OFFLINE", raising=False)
        patch.setattr(downloads, "BLOCK", 4096)  # so that small weights come in many pieces
        with Server(Settings(port=0, device="cpu")) as server:
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


def test_a_song_is_separated_played_and_taken_away(open_page, songs, tmp_path):
    page = open_page()
    player = separate(page, songs / "one.flac")
    assert player.locator(".row .name").all_inner_texts() == [
        "original",
        "1 drums",
        "2 bass",
        "3 other",
        "4 vocals",
    ]
    player.locator(".play").click()
    page.wait_for_function("document.querySelector('stem-player').engine.position > 22050")
    loudness_is(page, "> 0.001")
    for button in player.locator(".mute").all():
        button.click()
    loudness_is(page, "< 1e-5")
    player.locator(".solo").nth(3).click()  # a solo is heard, muted or not
    loudness_is(page, "> 1e-4")
    assert [gain > 0 for gain in engine(page, "gains")] == [False, False, False, False, True]
    player.get_by_role("button", name="Original").click()
    assert engine(page, "gains") == [1, 0, 0, 0, 0]
    with page.expect_download() as download:
        player.get_by_text("All stems (zip)").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert sorted(archive.namelist()) == [
            f"one - {stem}.wav" for stem in ("bass", "drums", "other", "vocals")
        ]
    player.get_by_role("button", name="Stems", exact=True).click()
    with page.expect_download() as download:
        player.get_by_text("This mix").click()
    assert download.value.suggested_filename == "one - mix.wav"
    assert all(url.startswith((page.url, "data:", "blob:")) for url in page.asked), page.asked


def test_seeking_looping_and_keys(open_page, songs):
    page = open_page()
    player = separate(page, songs / "one.flac")
    engine(page, f"seek({4 * RATE})")
    engine(page, f"setLoop({{from: {2 * RATE}, to: {2 * RATE + 8820}}})")
    assert engine(page, "position") == 2 * RATE
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelector('stem-player').engine.pieces.length > 4")
    assert 2 * RATE <= engine(page, "position") <= 2 * RATE + 8820
    pieces = engine(page, "pieces")
    for before, after in pairwise(pieces):
        if after["from"] == 2 * RATE:  # no sample is lost or heard twice where the loop closes
            assert after["frame"] - before["frame"] == before["to"] - before["from"]
    page.keyboard.press("2")
    page.keyboard.press("m")
    assert engine(page, "levels[2].muted")
    page.keyboard.press("s")
    assert engine(page, "levels[2].solo")
    page.keyboard.press("Space")
    assert not engine(page, "playing")
    assert player.locator(".row.selected .name").inner_text() == "2 bass"


def test_cancel_stops_the_job_and_deletes_its_files(open_page, songs, server):
    page = open_page()
    before = set((server.service.root / "songs").glob("*"))
    upload(page, "#song", songs / "long.flac")
    page.click("#separate")
    page.locator("#status").get_by_text("segments").wait_for()
    page.click("#cancel")
    page.locator("#status").get_by_text("Cancelled.").wait_for()
    idle(server)
    assert set((server.service.root / "songs").glob("*")) == before


def test_a_closed_tab_cancels_its_job(open_page, songs, server):
    page = open_page()
    upload(page, "#song", songs / "long.flac")
    page.click("#separate")
    page.locator("#status").get_by_text("segments").wait_for()
    assert server.service.queue.running
    page.close()
    idle(server)


def test_a_recording_is_a_song(open_page):
    page = open_page()
    page.evaluate("""() => {
        const devices = navigator.mediaDevices;
        const real = devices.getUserMedia.bind(devices);
        devices.getUserMedia = (wanted) => real((window.wanted = wanted));
    }""")
    for _ in range(2):  # the second one takes the place of the first
        page.get_by_role("button", name="Record").click()
        page.locator("song-recorder output").get_by_text("0:01").wait_for()
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("button", name="Record").wait_for()
        page.locator("#song a[href*='file=']").wait_for()
    assert page.evaluate("window.wanted.audio.echoCancellation") is False
    page.click("#separate")
    player = page.locator("#player stem-player")
    player.locator(".row").first.wait_for()
    assert player.locator("h2").inner_text() == "Recording"
    assert engine(page, "song.samples") > RATE // 2


def test_an_error_is_one_friendly_line(open_page, songs):
    page = open_page()
    page.click("#separate")
    page.get_by_role("alert").filter(has_text="Choose a song first").wait_for()
    upload(page, "#song", songs / "text.wav")
    page.click("#separate")
    alert = page.get_by_role("alert").filter(has_text="'text'")
    alert.wait_for()
    assert "/" not in alert.inner_text() and "Traceback" not in alert.inner_text()


def test_a_batch_goes_on_after_a_failure(open_page, songs):
    page = open_page()
    page.get_by_role("tab", name="Batch").click()
    choose(page, "#batch-model", "tiny")
    upload(page, "#batch-songs", songs / "one.flac", songs / "text.wav", songs / "two.flac")
    page.click("#batch-run")
    page.locator("#batch-table .sep-button").wait_for()
    states = page.locator("#batch-table td:nth-child(2)").all_inner_texts()
    assert states == ["done", "failed", "done"]
    with page.expect_download() as download:
        page.locator("#batch-table .sep-button").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert len(archive.namelist()) == 8


def test_two_users_get_only_their_own(open_page, songs):
    pages = [open_page(), open_page()]
    for page, name in zip(pages, ("one", "two"), strict=True):
        upload(page, "#song", songs / f"{name}.flac")
        page.click("#separate")
    tokens = []
    for page, name in zip(pages, ("one", "two"), strict=True):
        player = page.locator("#player stem-player")
        player.locator(".row").first.wait_for()
        assert player.locator("h2").inner_text() == name
        tokens.append(player.get_attribute("src"))
    assert tokens[0] != tokens[1]
    for page, other in zip(pages, tokens[::-1], strict=True):
        assert not [url for url in page.asked if other in url]


def test_models_are_compared_blindly(open_page, songs, tmp_path):
    page = open_page()
    with AudioWriter(tmp_path / "vocals.wav", RATE, 2) as writer:
        writer.write(make_signal(6 * RATE, RATE))
    page.get_by_role("tab", name="Compare").click()
    choose(page, "#compare-first", "tiny")
    choose(page, "#compare-second", "twin")
    upload(page, "#compare-song", songs / "one.flac")
    page.get_by_text("Range and references").click()
    upload(page, "#compare-references", tmp_path / "vocals.wav")
    page.click("#compare-run")
    player = page.locator("#compare-player stem-player")
    player.locator(".row").first.wait_for()
    versions = player.locator(".hear button")
    assert versions.all_inner_texts() == ["X", "Y", "Reference", "Original"]
    assert "tiny" not in player.inner_text() and "twin" not in player.inner_text()
    page.evaluate("document.activeElement.blur()")
    for number in range(4):
        assert versions.nth(number).get_attribute("aria-pressed") == "true"
        page.keyboard.press("o")
    player.get_by_role("button", name="Which is which?").click()
    player.locator(".truth p").first.wait_for()
    truth = player.locator(".truth p").all_inner_texts()
    assert sorted(line.split()[-1] for line in truth) == ["tiny.", "twin."]
    scores = player.locator(".truth td:last-child").all_inner_texts()
    assert len(scores) == 2 and scores[0] == scores[1], "the same weights score alike"


def test_weights_are_downloaded_verified_and_deleted(open_page, weights):
    page = open_page()
    page.get_by_role("tab", name="Models").click()
    page.locator("#zoo-table").get_by_role("button", name="remote", exact=True).click()
    button = page.locator("#zoo-get:enabled")
    button.wait_for()
    right = weights.content
    weights.content = right[::-1]
    weights.rest.set()
    button.click()
    page.get_by_role("alert").filter(has_text="wrong content").wait_for()
    weights.content = right
    weights.rest.clear()
    button.click()
    page.locator("#zoo-status progress[value]").wait_for()  # half of them are here
    weights.rest.set()
    page.locator("#zoo-status").get_by_text("remote is ready to use.").wait_for()
    page.locator("#zoo-facts").get_by_text("downloaded").wait_for()
    page.get_by_role("tab", name="Separate").click()
    page.locator("#model label").filter(has_text="remote").wait_for()
    page.get_by_role("tab", name="Models").click()
    page.locator("#zoo-delete:enabled").click()
    page.locator("#zoo-status").get_by_text("remote was deleted.").wait_for()
    button.wait_for()


def test_a_hostile_checkpoint_is_refused_and_the_app_lives_on(open_page, songs, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    checkpoint, config = tmp_path / "evil.ckpt", tmp_path / "evil.yaml"
    checkpoint.write_bytes(pickle.dumps({"state_dict": Bomb()}))
    config.write_text("model: {dim: 8}\naudio: {}\ntraining: {instruments: [vocals]}\n")
    page = open_page()
    page.get_by_role("tab", name="Models").click()
    page.get_by_text("Add a model").click()
    upload(page, "#zoo-checkpoint", checkpoint)
    upload(page, "#zoo-yaml", config)
    page.click("#zoo-add")
    page.locator("#zoo-status").get_by_role("alert").wait_for()
    assert not (tmp_path / "exploded").exists()
    page.get_by_role("tab", name="Separate").click()
    separate(page, songs / "one.flac")


def test_spectrograms_are_drawn(open_page, songs):
    page = open_page()
    player = separate(page, songs / "one.flac")
    player.get_by_role("button", name="Spectrograms").click()
    page.wait_for_function("""() => {
        const { shadowRoot } = document.querySelector("stem-player");
        return [...shadowRoot.querySelectorAll(".lane")].every((lane) => {
            const { data } = lane.getContext("2d").getImageData(0, 0, lane.width, lane.height);
            return data.some((value, i) => i % 4 === 3 && value > 0);
        });
    }""")
    assert player.locator(".lane").nth(1).get_attribute("aria-label") == "Spectrogram of drums"


def test_a_phone_shows_everything_without_scrolling_sideways(open_page, songs):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True)
    separate(page, songs / "one.flac")
    for tab, marker in TABS.items():
        page.get_by_role("tab", name=tab).click()
        page.locator(marker).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_accessibility_fault(open_page, songs, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(color_scheme=scheme)
    separate(page, songs / "one.flac")
    for tab, marker in TABS.items():
        page.get_by_role("tab", name=tab).click()
        page.locator(marker).wait_for()
        found = Axe().run(page).response["violations"]
        serious = [
            (fault["id"], [node["target"] for node in fault["nodes"]])
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]
        assert not serious, tab
    assert all(url.startswith((page.url, "data:", "blob:")) for url in page.asked), page.asked
