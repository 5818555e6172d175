"""Take pictures of every page of the web app with Chromium, for the README.

Usage: python scripts/screenshots.py [--output docs/screenshots] [--model pocket] [--url URL]
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DEMO = Path(__file__).parent.parent / "models" / "demo"
PATIENCE = 300_000  # milliseconds, for a slow machine


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), headless=True, args=FLAGS
        )
        yield chromium
        chromium.close()


def open_page(chromium: Any, url: str, scheme: str, width: int = 1280, height: int = 820) -> Any:
    context = chromium.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#separate")
    return page


def choose(page: Any, selector: str, name: str) -> None:
    """Pick a model from a list; nothing happens where it is picked already."""
    field = page.locator(f"{selector} input")
    if field.input_value().split(":")[0] != name:
        field.click()
        page.get_by_role("option").filter(has_text=name).first.click()
        page.wait_for_timeout(1500)


def player_pages(page: Any, model: str, target: Path, scheme: str) -> None:
    choose(page, "#model", model)
    page.click("#demo")
    page.wait_for_selector("#status .sep-status")
    page.screenshot(path=target / f"progress-{scheme}.png")
    page.wait_for_selector("#player stem-player .row")
    page.locator("#player stem-player .solo").nth(3).click()
    page.evaluate("document.querySelector('stem-player').engine.seek(44100 * 7.3)")
    page.wait_for_timeout(700)
    page.screenshot(path=target / f"player-{scheme}.png")
    page.locator("#player [data-view=spectrogram]").click()
    page.wait_for_timeout(1500)
    page.screenshot(path=target / f"spectrograms-{scheme}.png")


def batch_page(page: Any, model: str, target: Path, work: Path) -> None:
    songs = [work / name for name in ("First take.flac", "Second take.flac", "Notes.wav")]
    for song in songs[:2]:
        shutil.copyfile(DEMO / "mixture.flac", song)
    songs[2].write_text("not a song")
    page.get_by_role("tab", name="Batch").click()
    choose(page, "#batch-model", model)
    page.set_input_files("#batch-songs input[type=file]", songs)
    page.wait_for_timeout(1500)
    page.click("#batch-run")
    page.wait_for_selector("#batch-table .sep-button")
    page.screenshot(path=target / "batch.png")


def models_page(page: Any, target: Path) -> None:
    page.get_by_role("tab", name="Models").click()
    page.wait_for_timeout(1000)
    page.screenshot(path=target / "models.png")


def compare_page(page: Any, models: list[str], target: Path) -> None:
    page.get_by_role("tab", name="Compare").click()
    choose(page, "#compare-first", models[0])
    choose(page, "#compare-second", models[1])
    page.set_input_files("#compare-song input[type=file]", DEMO / "mixture.flac")
    page.get_by_text("Range and references").click()
    stems = [DEMO / f"{name}.ogg" for name in ("drums", "bass", "vocals")]
    page.set_input_files("#compare-references input[type=file]", stems)
    page.wait_for_timeout(2000)
    page.click("#compare-run")
    page.wait_for_selector("#compare-player stem-player .reveal")
    page.locator("#compare-player .reveal").click()
    page.wait_for_timeout(1000)
    page.screenshot(path=target / "compare.png", full_page=True)


def take(url: str, target: Path, models: list[str], work: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        light = open_page(chromium, url, "light")
        light.screenshot(path=target / "start.png")
        player_pages(light, models[0], target, "light")
        batch_page(light, models[0], target, work)
        models_page(light, target)
        if len(models) > 1:
            compare_page(light, models, target)
        player_pages(open_page(chromium, url, "dark"), models[0], target, "dark")
        phone = open_page(chromium, url, "light", 390, 844)
        choose(phone, "#model", models[0])
        phone.click("#demo")
        phone.wait_for_selector("stem-player .row")
        phone.locator("stem-player").scroll_into_view_if_needed()
        phone.wait_for_timeout(700)
        phone.screenshot(path=target / "phone.png", full_page=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/screenshots"))
    parser.add_argument("--model", action="append", help="name; a second one is compared with it")
    parser.add_argument("--url", help="of an app that runs; one is started unless given")
    options = parser.parse_args()
    import tempfile

    from separator.web.app import Server
    from separator.web.settings import Settings

    if shutil.which("chromium") is None:
        sys.exit("Chromium is needed: apt install chromium")
    server = nullcontext() if options.url else Server(Settings(port=0))
    with server as running, tempfile.TemporaryDirectory() as work:
        url = options.url or running.url
        take(url, options.output, options.model or ["pocket"], Path(work))


if __name__ == "__main__":
    main()
