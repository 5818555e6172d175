"""Recording in a real browser, whose microphone is not real; nothing here is timed."""

from browsing import RATE, engine, needs_chromium

pytest_plugins = ["browsing"]
pytestmark = needs_chromium

# Let the browser ask for permission until `allow` is called, and keep what it gives.
ASK = """() => {
  const devices = navigator.mediaDevices;
  const real = devices.getUserMedia.bind(devices);
  const allowed = new Promise((resolve) => (window.allow = resolve));
  window.streams = [];
  devices.getUserMedia = async (wanted) => {
    await allowed;
    const stream = await real(wanted);
    window.streams.push(stream);
    return stream;
  };
}"""
# How many microphones were switched on, and how many still are.
MICROPHONES = """() => {
  const tracks = window.streams.flatMap((stream) => stream.getTracks());
  return [tracks.length, tracks.filter((track) => track.readyState === "live").length];
}"""


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


def test_a_second_click_before_the_permission_starts_no_second_recording(open_page):
    page = open_page()
    page.evaluate(ASK)
    record = page.get_by_role("button", name="Record")
    record.click()
    record.click()
    page.evaluate("window.allow()")
    page.get_by_role("button", name="Stop").wait_for()
    page.locator("song-recorder output").get_by_text("0:01").wait_for()
    assert page.evaluate(MICROPHONES) == [1, 1]
    page.get_by_role("button", name="Stop").click()
    record.wait_for()
    assert page.evaluate(MICROPHONES) == [1, 0]


def test_no_microphone_stays_on_without_its_button(open_page):
    page = open_page()
    page.evaluate(ASK)
    page.get_by_role("button", name="Record").click()
    page.evaluate("document.querySelector('song-recorder').remove()")
    page.evaluate("window.allow()")
    page.wait_for_function("window.streams.length === 1")
    assert page.evaluate(MICROPHONES) == [1, 0]
