"""The player in a real browser; nothing here is timed."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from browsing import RATE, engine, needs_chromium, separate
from conftest import read_all

pytest_plugins = ["browsing"]
pytestmark = needs_chromium

# Whether a picture is in every lane.
DRAWN = """() => {
    const { shadowRoot } = document.querySelector("stem-player");
    return [...shadowRoot.querySelectorAll(".lane")].every((lane) => {
        const { data } = lane.getContext("2d").getImageData(0, 0, lane.width, lane.height);
        return data.some((value, i) => i % 4 === 3 && value > 0);
    });
}"""


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
    page.keyboard.press("l")
    assert engine(page, "loop") is None
    engine(page, "seek(0)")
    page.keyboard.press("ArrowRight")
    assert engine(page, "position") == 5 * RATE
    page.keyboard.press("[")
    page.keyboard.press("ArrowLeft")
    assert engine(page, "position") == 0
    assert engine(page, "loop") == {"from": 5 * RATE, "to": 6 * RATE}
    page.keyboard.press("ArrowDown")
    assert engine(page, "levels[2].volume") == 0.95
    page.keyboard.press("o")
    assert engine(page, "gains") == [1, 0, 0, 0, 0]
    assert player.locator(".row.selected .name").inner_text() == "2 bass"


def test_all_tracks_start_at_one_frame(open_page, songs):
    page = open_page()
    player = separate(page, songs / "one.flac")
    page.evaluate("""() => {
        window.starts = [];
        const start = AudioBufferSourceNode.prototype.start;
        AudioBufferSourceNode.prototype.start = function (...when) {
            window.starts.push(when);
            return start.apply(this, when);
        };
    }""")
    player.locator(".play").click()
    page.wait_for_function("window.starts.length >= 10")
    starts = page.evaluate("window.starts")
    for chunk in range(0, 10, 5):  # the original and four stems
        assert starts[chunk : chunk + 5] == [starts[chunk]] * 5
    frame = starts[5][0] * RATE
    assert abs(frame - round(frame)) < 1e-3
    assert frame - starts[0][0] * RATE == pytest.approx(starts[0][2] * RATE, abs=1e-3)


def test_a_range_is_drawn_or_typed_and_a_click_seeks(open_page, songs):
    page = open_page()
    player = separate(page, songs / "one.flac")
    lane = player.locator(".lane").nth(2)
    lane.scroll_into_view_if_needed()
    box = lane.bounding_box()
    across = [box["x"] + share * box["width"] for share in (0.25, 0.75)]
    middle = box["y"] + box["height"] / 2
    page.mouse.move(across[0], middle)
    page.mouse.down()
    page.mouse.move(across[1], middle, steps=4)
    page.mouse.up()
    loop = engine(page, "loop")
    pixel = 6 * RATE / box["width"]
    assert abs(loop["from"] - 1.5 * RATE) <= pixel and abs(loop["to"] - 4.5 * RATE) <= pixel
    assert player.locator(".selection").is_visible()
    player.get_by_label("Loop from").fill("0:02")
    player.get_by_label("Loop to").fill("3.5")
    player.get_by_label("Loop to").press("Enter")
    assert engine(page, "loop") == {"from": 2 * RATE, "to": 3.5 * RATE}
    player.get_by_role("button", name="Loop").click()
    assert engine(page, "loop") is None
    page.mouse.click(across[1], middle)
    assert abs(engine(page, "position") - 4.5 * RATE) <= pixel


def test_the_mix_is_taken_away_as_it_is_heard(open_page, songs):
    page = open_page()
    player = separate(page, songs / "one.flac")
    player.get_by_label("Volume of drums").fill("0.5")
    player.get_by_role("button", name="Mute bass").click()
    player.get_by_role("button", name="Mute other").click()
    files = {}
    for name in ("Download drums", "Download vocals", "This mix"):
        with page.expect_download() as download:
            player.get_by_role("link", name=name).click()
        files[name] = read_all(Path(download.value.path()))
    drums, vocals, mix = files.values()
    assert np.abs(drums).max() > 1e-3
    assert np.abs(0.5 * drums + vocals - mix).max() < 2**-22


def test_a_mix_of_nothing_is_refused_with_a_reason(open_page, songs):
    page = open_page()
    player = separate(page, songs / "one.flac")
    for name in ("drums", "bass", "other", "vocals"):
        player.get_by_role("button", name=f"Mute {name}").click()
    player.get_by_role("link", name="This mix").click()
    trouble = player.get_by_role("alert")
    trouble.get_by_text("Nothing is heard: unmute a stem").wait_for()
    assert not any("mix.wav" in url for url in page.asked)
    player.get_by_role("button", name="Mute vocals").click()
    trouble.get_by_text("Nothing").wait_for(state="detached")
    with page.expect_download():
        player.get_by_role("link", name="This mix").click()


def test_waveforms_and_spectrograms_are_drawn(open_page, songs):
    page = open_page()
    player = separate(page, songs / "one.flac")
    page.wait_for_function(DRAWN)
    assert player.locator(".lane").nth(1).get_attribute("aria-label") == "Waveform of drums"
    player.get_by_role("button", name="Spectrograms").click()
    page.wait_for_function(DRAWN)
    assert player.locator(".lane").nth(1).get_attribute("aria-label") == "Spectrogram of drums"
