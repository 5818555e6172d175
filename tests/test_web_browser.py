"""The pages in a real browser; nothing here is timed."""

import threading
import zipfile
from pathlib import Path

import pytest
from browsing import (
    PATIENCE,
    RATE,
    choose,
    engine,
    idle,
    loudness_is,
    needs_chromium,
    separate,
    upload,
)
from conftest import read_all

from separator.resources import DEFAULT_MODEL
from separator.web.jobs import Job

pytest_plugins = ["browsing"]
pytestmark = needs_chromium

TABS = {
    "Separate": "#separate",
    "Batch": "#batch-run",
    "Compare": "#compare-run",
    "Models": "#zoo-get",
}

# The name of what has the focus, and whether it, or the panel around it, is marked.
FOCUS = """() => {
  let focus = document.activeElement;
  while (focus.shadowRoot?.activeElement) focus = focus.shadowRoot.activeElement;
  const label = focus.closest("label") || focus;
  const name = focus.getAttribute("aria-label") || label.innerText.split("\\n")[0];
  const marks = [focus, label, focus.closest(".wrap") || focus].map((each) => {
    const style = getComputedStyle(each);
    const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
    return outlined || style.boxShadow !== "none";
  });
  return [focus.tagName === "BODY" ? "BODY" : name.trim(), marks.some(Boolean)];
}"""


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
    ours = (page.evaluate("location.origin"), "data:", "blob:")
    assert all(url.startswith(ours) for url in page.asked), page.asked


def test_the_default_model_is_chosen_and_cards_tell_size_licence_and_speed(open_page, songs):
    page = open_page()
    page.reload()
    page.wait_for_selector("#separate")
    assert page.locator("#model input:checked").get_attribute("value") == DEFAULT_MODEL
    card = page.locator("#model label").filter(has_text="tiny")
    card.click()
    said = card.inner_text()
    assert "Random weights, for tests" in said and " MB" in said and "licence: MIT" in said
    separate(page, songs / "one.flac")
    card.filter(has_text="than playing").wait_for()


def test_stems_a_leftover_a_range_and_a_format(open_page, songs):
    page = open_page()
    page.get_by_text("About this model").click()
    page.get_by_text("none: the weights are random").wait_for()  # the stems are those of `tiny`
    stems = page.locator(".sep-stems:visible")
    for stem in ("drums", "bass", "other"):
        stems.get_by_label(stem).uncheck()
    page.get_by_text("Range and instrumental").click()
    page.locator("#rest input").check()
    page.get_by_role("textbox", name="From", exact=True).fill("0:01.5")
    page.get_by_role("textbox", name="To", exact=True).fill("4")
    page.get_by_text("Advanced", exact=True).click()
    choose(page, "#format", "flac")
    choose(page, "#precision", "float32")
    page.locator("#overlap input[type=number]").fill("0.5")
    page.locator("#shifts input[type=number]").fill("1")
    player = separate(page, songs / "one.flac")
    assert player.locator(".row .name").all_inner_texts() == [
        "original",
        "1 vocals",
        "2 instrumental",
    ]
    assert engine(page, "song.samples") == 2.5 * RATE
    with page.expect_download() as download:
        player.get_by_role("link", name="Download instrumental").click()
    assert download.value.suggested_filename == "one - instrumental.flac"
    assert read_all(Path(download.value.path())).shape == (2, 2.5 * RATE)


def test_several_songs_on_the_first_page_go_to_the_batch(open_page, songs):
    page = open_page()
    page.set_input_files("#song input[type=file]", [songs / "one.flac", songs / "two.flac"])
    page.locator("#batch-songs a[href*='file=']").nth(1).wait_for()
    page.locator("#batch-run:visible").wait_for()
    assert page.locator("#song a[href*='file=']").count() == 0


def test_the_place_in_the_queue_is_told(open_page, songs, server):
    gate = threading.Event()
    queue = server.service.queue
    queue.submit(Job("before", "somebody/", lambda job: gate.wait(PATIENCE / 1000)))
    page, other = open_page(), open_page()
    upload(page, "#song", songs / "one.flac")
    page.click("#separate")
    page.locator("#status").get_by_text("Waiting: 1 song is before this one").wait_for()
    other.get_by_role("tab", name="Batch").click()
    choose(other, "#batch-model", "tiny")
    upload(other, "#batch-songs", songs / "one.flac", songs / "two.flac")
    other.click("#batch-run")
    other.locator("#batch-table").get_by_text("3 before it").wait_for()
    states = other.locator("#batch-table td:nth-child(2)")
    assert states.all_inner_texts() == ["waiting", "waiting"]
    other.click("#batch-cancel")
    other.locator("#batch-table .cancelled").nth(1).wait_for()
    gate.set()
    page.locator("#player stem-player .row").first.wait_for()


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


def test_a_closed_tab_that_stays_away_cancels_its_job(open_page, songs, server):
    page = open_page()
    upload(page, "#song", songs / "long.flac")
    page.click("#separate")
    page.locator("#status").get_by_text("segments").wait_for()
    assert server.service.queue.running
    page.close()
    pause = threading.Event()
    while not (given_up := server.service.works.abandoned(1)):
        pause.wait(0.1)  # until no page has asked for a second
    for job in given_up:
        server.service.queue.cancel(job)
    idle(server)


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


def test_a_phone_shows_everything_without_scrolling_sideways(open_page, songs):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True)
    separate(page, songs / "one.flac")
    for tab, marker in TABS.items():
        page.get_by_role("tab", name=tab).click()
        page.locator(marker).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab


def test_what_goes_on_is_seen_on_a_phone_below_the_button(open_page):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True)
    page.click("#separate")
    alert = page.locator("#status").get_by_role("alert")
    alert.wait_for()
    below = alert.bounding_box()["y"] - page.locator("#separate").bounding_box()["y"]
    assert 0 < below < 100


def test_the_keyboard_focus_is_always_seen(open_page):
    page = open_page()
    page.get_by_role("button", name="Advanced").locator("visible=true").click()
    page.get_by_role("button", name="Record").wait_for()
    page.get_by_role("tab", name="Separate").focus()
    seen = []
    while len(seen) < 60:
        page.keyboard.press("Tab")
        name, marked = page.evaluate(FOCUS)
        if name == "BODY":
            break
        seen.append(name)
        assert marked, seen
    assert {"Record", "Separate", DEFAULT_MODEL, "Precision", "drums"} <= set(seen), seen


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
    ours = (page.evaluate("location.origin"), "data:", "blob:")
    assert all(url.startswith(ours) for url in page.asked), page.asked
