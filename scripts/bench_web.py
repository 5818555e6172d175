"""Measure the web app: first paint, upload to playable stems, memory after many songs.

    python scripts/bench_web.py [SECTION ...] [--runs 3] [--jobs 20]

Sections: queue, cancel, paint, playable; all of them unless named. The bundled model and Chromium
are used; nothing else should run meanwhile. Targets: first paint under 2 s, playable within 1.2
times what the command line needs for the same clip, memory after the last song within 10 % of that
after the first, a job that is cancelled over within 2 s.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import SEPARATOR, run, song
from screenshots import browser, open_page

from separator.web.app import Server
from separator.web.service import Request, Service
from separator.web.settings import AppSettings

MODEL = "pocket"
CLIP_SECONDS = 30
QUEUED_SECONDS = 10
PAINT = """() => ({
  paint: performance.getEntriesByName("first-contentful-paint")[0].startTime / 1000,
  requests: performance.getEntriesByType("resource").length,
  bytes: performance.getEntriesByType("resource").reduce((sum, e) => sum + e.transferSize, 0),
})"""


def bench_paint(work: Path, options: argparse.Namespace) -> None:
    """When something is seen, and when a song can be chosen; each time with an empty cache."""
    found: list[dict[str, float]] = []
    with Server(AppSettings(port=0)) as server, browser() as chromium:
        for _ in range(options.runs + 1):
            began = time.perf_counter()
            page = open_page(chromium, server.url)
            usable = time.perf_counter() - began
            found.append({"usable": usable, **page.evaluate(PAINT)})
            page.context.close()
    warm = found[1:]  # the first one pays for the browser's own start
    for name, unit in (("paint", "s"), ("usable", "s"), ("requests", ""), ("bytes", "")):
        value = statistics.median(each[name] for each in warm)
        print(f"  {name:<10} {value:10.2f} {unit}")


def bench_playable(work: Path, options: argparse.Namespace) -> None:
    """From the upload of a clip until its stems can be played, beside the command line."""
    clip = song(work / "clip.wav", CLIP_SECONDS)
    command = [*SEPARATOR, "separate", str(clip), "-o", str(work / "out"), "--overwrite"]
    lines, pages = [], []
    with Server(AppSettings(port=0)) as server, browser() as chromium:
        for _ in range(options.runs):
            lines.append(run([*command, "--model", MODEL])[0])
            pages.append(playable(chromium, server.url, clip))
    line = statistics.median(lines)
    page = statistics.median(pages)
    print(f"  command    {line:6.2f} s for {CLIP_SECONDS} s of music")
    print(f"  page       {page:6.2f} s, the first time {pages[0]:.2f} s")
    print(f"  ratio      {page / line:6.2f}   first: {pages[0] / line:.2f}")


def playable(chromium: Any, url: str, clip: Path) -> float:
    """Return the seconds from giving a clip to the page until the player can play it."""
    page = open_page(chromium, url)
    began = time.perf_counter()
    page.set_input_files("#song input[type=file]", clip)
    page.locator("#song a[href*='file=']").wait_for()
    page.click("#separate")
    page.locator("#player stem-player .play").wait_for()
    seconds = time.perf_counter() - began
    page.context.close()
    return seconds


def bench_queue(work: Path, options: argparse.Namespace) -> None:
    """Many songs of two users in the queue: what becomes of them, and of the memory."""
    clip = song(work / "queued.wav", QUEUED_SECONDS)
    service = Service(AppSettings())
    jobs = [service.submit(Request(clip, MODEL, title="first"), "user0/")]
    wait(service)
    first = resident()
    for number in range(1, options.jobs):
        wanted = Request(clip, MODEL, title=f"song {number}")
        jobs.append(service.submit(wanted, f"user{number % 2}/"))
    wait(service)
    last = resident()
    states = [job.state for job in jobs]
    service.close()
    print(f"  done       {states.count('done'):6d} of {len(jobs)}")
    print(f"  after 1    {first:6.0f} MB")
    print(f"  after {len(jobs):<4d} {last:6.0f} MB")
    print(f"  change     {100 * (last / first - 1):+6.1f} %")


def bench_cancel(work: Path, options: argparse.Namespace) -> None:
    """How long a job goes on after it was cancelled, and what it leaves in memory."""
    clip = song(work / "cancelled.wav", 10 * CLIP_SECONDS)
    service = Service(AppSettings())
    seconds, memory = [], []
    for _ in range(options.runs):
        job = service.submit(Request(clip, MODEL), "user/")
        while not (job.done or job.ended.is_set()):
            time.sleep(0.01)
        busy = resident()
        began = time.perf_counter()
        service.queue.cancel(job)
        wait(service)
        seconds.append(time.perf_counter() - began)
        memory.append((busy, resident()))
        assert job.state == "cancelled", job.state
    service.close()
    print(f"  cancelled  {max(seconds):6.2f} s later, at worst")
    print(f"  memory     {memory[-1][0]:6.0f} MB before, {memory[-1][1]:.0f} MB after")


def wait(service: Service) -> None:
    """Wait until no job runs, and what the last one held is given back."""
    while service.queue.running:
        time.sleep(0.01)


def resident() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


SECTIONS = {
    "queue": bench_queue,
    "cancel": bench_cancel,
    "paint": bench_paint,
    "playable": bench_playable,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], metavar="SECTION")
    parser.add_argument("--runs", type=int, default=3, help="of each measurement of time")
    parser.add_argument("--jobs", type=int, default=20, help="songs in the queue")
    options = parser.parse_args()
    if shutil.which("chromium") is None:
        sys.exit("Chromium is needed: apt install chromium")
    for name, function in SECTIONS.items():
        if not options.sections or name in options.sections:
            print(name)
            with tempfile.TemporaryDirectory() as work:
                function(Path(work), options)


if __name__ == "__main__":
    main()
