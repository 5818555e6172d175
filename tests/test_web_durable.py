"""What a page has outlives it: reloading, going back, a drop of the network; drops of songs."""

import selectors
import socket
import threading
import zipfile

import httpx
import pytest
from browsing import PATIENCE, idle, needs_chromium, playwright_api, separate, upload

pytest_plugins = ["browsing"]
pytestmark = needs_chromium

# Drop files on an element, as a hand does.
DROP = """async ([selector, files]) => {
  const transfer = new DataTransfer();
  for (const [name, bytes] of files)
    transfer.items.add(new File([new Uint8Array(bytes)], name));
  const target = document.querySelector(selector);
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const event = new DragEvent(kind, {
      dataTransfer: transfer, bubbles: true, cancelable: true, composed: true });
    if (!target.dispatchEvent(event) && kind === "drop") return "taken";
  }
  return "the browser opens it";
}"""


class Wire:
    """A way to a server that can be cut: a thread that carries bytes both ways."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake, self._waker = socket.socketpair()
        self._selector.register(self._waker, selectors.EVENT_READ)
        self.is_cut = False
        self._ended = False
        self.refused = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        self.is_cut = True
        self._wake.send(b"x")

    def mend(self) -> None:
        self.is_cut = False

    def close(self) -> None:
        self._ended = True
        self._wake.send(b"x")
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._pairs:
                    self._carry(key.fileobj)
                elif key.fileobj is self._waker:
                    self._waker.recv(100)
            if self.is_cut or self._ended:
                for each in [*self._pairs]:
                    self._drop(each)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        if self.is_cut:
            near.close()
            self.refused.set()
            return
        far = socket.create_connection(self._target)
        self._pairs |= {near: far, far: near}
        for each in (near, far):
            self._selector.register(each, selectors.EVENT_READ)

    def _carry(self, source: socket.socket) -> None:
        try:
            data = source.recv(1 << 16)
            if data:
                self._pairs[source].sendall(data)
                return
        except OSError:
            pass
        self._drop(source)

    def _drop(self, end: socket.socket) -> None:
        for each in (end, self._pairs.get(end)):
            if each in self._pairs:
                del self._pairs[each]
                self._selector.unregister(each)
                each.close()


@pytest.fixture
def wire(server):
    wire = Wire(httpx.URL(server.url).port)
    yield wire
    wire.close()


def allow_leaving(page) -> list[str]:
    """Answer the page's questions with yes; return what kinds of questions there were."""
    asked: list[str] = []

    def answer(dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", answer)
    return asked


def test_a_result_survives_reload_and_the_back_button(open_page, songs):
    page = open_page()
    asked = allow_leaving(page)
    token = separate(page, songs / "one.flac").get_attribute("src")
    page.reload()
    player = page.locator("#player stem-player")
    player.locator(".row").first.wait_for()
    assert player.get_attribute("src") == token
    page.locator("#song a[href*='one.flac']").wait_for()  # it can be separated again
    address = page.url
    page.goto("about:blank")
    page.go_back()
    assert page.url == address
    player.locator(".row").first.wait_for()
    assert player.get_attribute("src") == token
    assert not asked, "nothing is under way"


def test_work_under_way_survives_a_reload_and_asks_before(open_page, songs, server):
    page = open_page()
    asked = allow_leaving(page)
    upload(page, "#song", songs / "long.flac")
    page.click("#separate")
    page.locator("#status").get_by_text("segments").wait_for()
    (job,) = server.service.queue._jobs
    page.reload()
    assert asked == ["beforeunload"]
    page.locator("#status").get_by_text("segments").wait_for()
    assert server.service.queue._jobs == [job] and not job.cancel.is_set()
    page.click("#cancel")  # by the page that came later
    page.locator("#status").get_by_text("Cancelled.").wait_for()
    idle(server)
    assert job.state == "cancelled"


def test_a_drop_of_the_network_is_survived(chromium, songs, server, wire):
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    asked = allow_leaving(page)
    page.goto(wire.url)
    page.locator("#model label").filter(has_text="tiny").click()
    upload(page, "#song", songs / "long.flac")
    page.click("#separate")
    page.locator("#status").get_by_text("segments").wait_for()
    (job,) = server.service.queue._jobs
    with page.expect_navigation():  # the page loads itself again
        wire.cut()
        assert wire.refused.wait(PATIENCE / 1000)
        wire.mend()
    page.locator("#status").get_by_text("segments").wait_for()
    assert server.service.queue._jobs == [job] and not job.cancel.is_set()
    assert not asked
    page.click("#cancel")
    page.locator("#status").get_by_text("Cancelled.").wait_for()
    idle(server)
    context.close()


def test_a_batch_survives_a_reload(open_page, songs):
    page = open_page()
    page.get_by_role("tab", name="Batch").click()
    upload(page, "#batch-songs", songs / "one.flac", songs / "text.wav")
    page.click("#batch-karaoke")
    page.locator("#batch-table .sep-button").wait_for()
    page.reload()
    page.get_by_role("tab", name="Batch").click()
    page.locator("#batch-table .sep-button").wait_for()
    states = page.locator("#batch-table td:nth-child(2)").all_inner_texts()
    assert states == ["done", "failed"]
    with page.expect_download() as download:
        page.locator("#batch-table .sep-button").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        names = [name.split(" - ")[-1] for name in archive.namelist()]
    assert names == ["vocals.wav", "instrumental.wav"]


def test_vocals_and_instrumental_are_one_click(open_page, songs):
    page = open_page()
    upload(page, "#song", songs / "one.flac")
    page.get_by_role("button", name="Vocals + instrumental", exact=True).click()
    names = page.locator("#player stem-player .row .name")
    playwright_api.expect(names).to_have_text(
        ["original", "1 vocals", "2 instrumental"], timeout=PATIENCE
    )


@pytest.mark.parametrize("place", [".sep-welcome", "body", "#song"])
def test_the_whole_page_takes_drops_and_the_second_song_replaces_the_first(open_page, songs, place):
    page = open_page()
    for name in ("one", "two"):
        content = list((songs / f"{name}.flac").read_bytes()[:20_000])
        assert page.evaluate(DROP, [place, [[f"{name}.flac", content]]]) == "taken"
        page.locator(f"#song a[href*='{name}.flac']").wait_for()
        assert page.locator("#song a[href*='file=']").count() == 1
    assert not page.locator("body.sep-dropping").count()


def test_what_is_dropped_on_another_tab_goes_there(open_page, songs):
    page = open_page()
    page.get_by_role("tab", name="Compare").click()
    content = list((songs / "one.flac").read_bytes()[:20_000])
    page.locator("#compare-song:visible").wait_for()
    assert page.evaluate(DROP, ["body", [["one.flac", content]]]) == "taken"
    page.locator("#compare-song a[href*='one.flac']").wait_for()


def test_a_proxy_may_show_the_app_below_a_path(chromium, songs, models, monkeypatch, tmp_path):
    from separator.web.app import Server
    from separator.web.settings import AppSettings

    monkeypatch.setenv("SEPARATOR_MODELS", str(models))
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # so that it is put back afterwards
    with Server(AppSettings(port=0, device="cpu", root_path="/separator")) as server:
        context = chromium.new_context()
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        missing: list[str] = []
        page.on("response", lambda it: missing.append(it.url) if it.status == 404 else None)
        page.goto(f"{server.url}separator/")
        page.locator("#model label").filter(has_text="tiny").click()
        player = separate(page, songs / "one.flac")
        with page.expect_download() as download:
            player.get_by_text("All stems (zip)").click()
        assert zipfile.is_zipfile(download.value.path())
        assert not missing
        context.close()
