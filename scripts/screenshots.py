"""Take pictures of every page of the web app with Chromium, light and dark, for the README.

Usage: python scripts/screenshots.py [--output models/demo/screenshots] [--url URL]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

DEMO = Path(__file__).parent.parent / "models" / "demo"
PATIENCE = 300_000  # milliseconds, for a slow machine
COLORS = 128  # kept as they are, of the most frequent ones; as many again stand for the others

# What is compared with the bundled model, so that nothing need be downloaded.
ENSEMBLE = """
name: pocket-smooth
description: pocket with segments that overlap more, twice the work
stems: [drums, bass, other, vocals]
members:
- model: pocket
  overlap: 0.75
licence: MIT
"""


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), headless=True, args=["--disable-gpu"]
        )
        yield chromium
        chromium.close()


def open_page(chromium: Any, url: str, width: int = 1280, height: int = 820) -> Any:
    context = chromium.new_context(
        viewport={"width": width, "height": height}, reduced_motion="reduce"
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#separate")
    return page


def shoot(page: Any, target: Path, *, whole: bool = False) -> None:
    """Write `target` and its dark sister, as small as they can be."""
    from PIL import Image

    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.add_style_tag(content="* { transition: none !important; }")  # no colour half-way
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", scheme == "dark")
        page.wait_for_timeout(1000)
        path = target.with_name(f"{target.name}-{scheme}.png")
        page.screenshot(path=path, full_page=whole)
        compact(Image.open(path).convert("RGB")).save(path, optimize=True)


def compact(picture: Any) -> Any:
    """Return a picture in few colours, about a third as large: flat surfaces keep theirs."""
    from PIL import Image

    frequent = sorted(picture.getcolors(1 << 24), reverse=True)[:COLORS]
    others = picture.quantize(COLORS).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for _, color in frequent for value in color] + others[: 3 * COLORS])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def choose(page: Any, selector: str, name: str) -> None:
    """Pick a model from a list; nothing happens where it is picked already."""
    field = page.locator(f"{selector} input")
    if field.input_value() != name:
        field.fill(name)
        page.locator(f"[role=option][aria-label='{name}']:visible").first.click()
        field.blur()


def upload(page: Any, selector: str, *files: Path) -> None:
    page.set_input_files(f"{selector} input[type=file]", files)
    page.locator(f"{selector} a[href*='file=']").nth(len(files) - 1).wait_for()


def separate_pages(page: Any, target: Path) -> None:
    page.get_by_role("button", name="Record").wait_for()
    shoot(page, target / "start")
    page.click("#demo")
    page.locator("#status").get_by_text("left").wait_for()
    shoot(page, target / "progress")
    player = page.locator("#player stem-player")
    player.locator(".row").first.wait_for()
    player.locator(".solo").nth(3).click()
    page.evaluate("document.querySelector('stem-player').engine.seek(44100 * 7.3)")
    page.evaluate(
        "document.querySelector('stem-player').engine.setLoop({from: 44100 * 6, to: 44100 * 12})"
    )
    shoot(page, target / "player")
    player.get_by_role("button", name="Solo vocals").click()
    player.get_by_role("button", name="Spectrograms").click()
    shoot(page, target / "spectrograms")


def batch_page(page: Any, target: Path, songs: list[Path]) -> None:
    page.get_by_role("tab", name="Batch").click()
    upload(page, "#batch-songs", *songs)
    page.click("#batch-run")
    page.locator("#batch-table .done").nth(1).wait_for()
    page.locator("#batch-player stem-player .row").first.wait_for()
    shoot(page, target / "batch")


def compare_page(page: Any, target: Path) -> None:
    page.get_by_role("tab", name="Compare").click()
    choose(page, "#compare-first", "pocket")
    choose(page, "#compare-second", "pocket-smooth")
    upload(page, "#compare-song", DEMO / "mixture.flac")
    page.get_by_text("Range and references").click()
    page.get_by_role("textbox", name="To", exact=True).fill("0:10")
    stems = [DEMO / f"{name}.ogg" for name in ("drums", "bass", "vocals")]
    upload(page, "#compare-references", *stems)
    page.click("#compare-run")
    page.locator("#compare-player .reveal").click()
    page.locator("#compare-player .truth .chart").wait_for()
    shoot(page, target / "compare", whole=True)


def models_page(page: Any, target: Path) -> None:
    page.get_by_role("tab", name="Models").click()
    page.locator("#zoo-table .pick").nth(12).wait_for()
    page.get_by_role("button", name="mel-roformer-kim-vocals", exact=True).click()
    page.locator("#zoo-get:enabled").wait_for()
    shoot(page, target / "models")


def phone_page(page: Any, target: Path) -> None:
    page.click("#demo")
    page.locator("#player stem-player .row").first.wait_for()
    shoot(page, target / "phone")


def write_songs(folder: Path) -> list[Path]:
    """Write two short songs and a text that pretends to be one."""
    from separator.audio.reader import open_audio
    from separator.audio.writer import AudioWriter

    songs = [folder / name for name in ("First take.flac", "Second take.flac", "Notes.wav")]
    for number, path in enumerate(songs[:2]):
        with open_audio(DEMO / "mixture.flac", start=6.0 * number, duration=6.0) as reader:
            blocks = list(reader)
        with AudioWriter(path, reader.sample_rate, reader.channels) as writer:
            for block in blocks:
                writer.write(block)
    songs[2].write_text("not a song")
    return songs


def take(url: str, target: Path, songs: list[Path]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        page = open_page(chromium, url)
        separate_pages(page, target)
        batch_page(page, target, songs)
        compare_page(page, target)
        models_page(page, target)
        phone_page(open_page(chromium, url, 390, 844), target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=DEMO / "screenshots")
    parser.add_argument("--url", help="of an app that runs; one is started unless given")
    options = parser.parse_args()
    from separator.web.app import Server
    from separator.web.settings import AppSettings

    if shutil.which("chromium") is None:
        sys.exit("Chromium is needed: apt install chromium")
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "pocket-smooth.yaml").write_text(ENSEMBLE)
        os.environ["SEPARATOR_MODELS"] = work
        os.environ["SEPARATOR_CACHE"] = f"{work}/cache"  # what was downloaded here stays out
        server = nullcontext() if options.url else Server(AppSettings(port=0))
        with server as running:
            take(options.url or running.url, options.output, write_songs(Path(work)))


if __name__ == "__main__":
    main()
