"""The web app in a real browser: Chromium, headless, with a tiny model."""

import shutil
import time
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import make_signal

from separator.audio import AudioWriter

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the program chromium is not installed")

RATE = 44100
PATIENCE = 120_000  # milliseconds; only a machine that does much else needs them
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]


@pytest.fixture(scope="module")
def server(tiny_models, tmp_path_factory):
    from separator.web.app import Server
    from separator.web.settings import Settings

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEPARATOR_MODELS", str(tiny_models))
        patch.setenv("SEPARATOR_CACHE", str(tmp_path_factory.mktemp("cache")))
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
        context = chromium.new_context(viewport={"width": 1280, "height": 860}, **options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(server.url)
        page.wait_for_selector("#separate")
        choose_tiny(page, "#model")
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


def choose_tiny(page, selector: str) -> None:
    field = page.locator(f"{selector} input")
    if not field.input_value().startswith("tiny"):
        field.click()
        page.get_by_role("option").filter(has_text="tiny").click()
        page.wait_for_function(
            "selector => document.querySelector(selector).value.startsWith('tiny')",
            arg=f"{selector} input",
        )
        page.wait_for_timeout(500)


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


def test_cancel_stops_at_once(open_page, songs, server):
    page = open_page()
    upload(page, "#song", songs / "long.flac")
    page.click("#separate")
    page.locator("#status").get_by_text("segments").wait_for()
    page.click("#cancel")
    began = time.perf_counter()
    page.locator("#status").get_by_text("Cancelled.").wait_for()
    while server.service.queue.running and time.perf_counter() - began < 10:
        time.sleep(0.02)
    assert time.perf_counter() - began < 2


def test_a_closed_tab_cancels_its_job(open_page, songs, server):
    page = open_page()
    upload(page, "#song", songs / "long.flac")
    page.click("#separate")
    page.locator("#status").get_by_text("segments").wait_for()
    page.close()
    deadline = time.perf_counter() + 30
    while server.service.queue.running:
        assert time.perf_counter() < deadline
        time.sleep(0.1)


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
    choose_tiny(page, "#batch-model")
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_accessibility_fault(open_page, songs, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(color_scheme=scheme)
    separate(page, songs / "one.flac")
    for tab in ("Separate", "Batch", "Compare", "Models"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        found = Axe().run(page).response["violations"]
        serious = [
            (fault["id"], [node["target"] for node in fault["nodes"]])
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]
        assert not serious, tab


def test_programs_find_the_same_functions(server):
    from gradio_client import Client

    client = Client(server.url, verbose=False)
    models = client.predict(api_name="/models")
    assert "tiny" in [model["name"] for model in models]
    assert "/separate" in client.view_api(return_format="dict")["named_endpoints"]


def read(path: str) -> np.ndarray:
    from conftest import read_all

    return read_all(Path(path))
