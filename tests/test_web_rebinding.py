"""Real pages of other places, in Chromium, against an app on this computer."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from browsing import CHROMIUM, FLAGS, PATIENCE, needs_chromium, playwright_api

pytest_plugins = ["browsing"]
pytestmark = needs_chromium

# What a page tries, by its own origin's name for the app: read, and send a file.
ATTACK = """async (app) => {
  const tried = {};
  const form = new FormData();
  form.append("files", new Blob(["RIFF"]), "song.wav");
  for (const [name, address, options] of [
    ["read", "/config", {}],
    ["send", "/gradio_api/upload", { method: "POST", body: form, mode: "no-cors" }],
  ]) {
    try {
      tried[name] = (await fetch(app + address, options)).status;
    } catch (error) {
      tried[name] = "refused";
    }
  }
  return tried;
}"""
FORM = """(app) => {
  const form = document.createElement("form");
  Object.assign(form, { method: "POST", enctype: "multipart/form-data",
    action: app + "/gradio_api/upload" });
  const field = Object.assign(document.createElement("input"), { type: "file", name: "files" });
  const files = new DataTransfer();
  files.items.add(new File(["RIFF"], "song.wav"));
  form.append(field);
  document.body.append(form);
  field.files = files.files;
  form.submit();
}"""


class Elsewhere(BaseHTTPRequestHandler):
    """An empty page of another place."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><body>evil")

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def elsewhere():
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def page():
    with playwright_api.sync_playwright() as playwright:
        rule = "--host-resolver-rules=MAP evil.example 127.0.0.1"
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=[*FLAGS, rule], timeout=PATIENCE
        )
        yield browser.new_page()
        browser.close()


def stored(server) -> list:
    return [path for path in server.service.uploads.folder.rglob("*") if path.is_file()]


def test_a_rebound_name_reads_and_sends_nothing(page, server):
    port = httpx.URL(server.url).port
    answer = page.goto(f"http://evil.example:{port}/")
    assert answer.status == 403
    app = f"http://evil.example:{port}"  # to the browser this is the page's own origin
    assert page.evaluate(ATTACK, app) == {"read": 403, "send": 403}
    assert not stored(server)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "evil.example"])
def test_a_page_of_another_port_or_site_reads_and_sends_nothing(page, server, elsewhere, name):
    app = server.url.rstrip("/")
    page.goto(f"http://{name}:{elsewhere}/")
    tried = page.evaluate(ATTACK, app)
    assert tried["read"] == "refused"
    with page.expect_navigation() as answer:
        page.evaluate(FORM, app)
    assert answer.value.status == 403
    assert not stored(server)
