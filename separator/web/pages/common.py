"""What several pages share: the options of a run, and waiting for jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from separator.audio.formats import BIT_DEPTHS, FORMATS
from separator.ensemble.knobs import LIMITS
from separator.errors import ConfigError
from separator.stream.choices import PRECISIONS
from separator.web import view
from separator.web.catalog import in_short, summary
from separator.web.jobs import Job, Queue
from separator.web.service import Request, Service
from separator.web.uploads import Visitor, known_visitor
from separator.web.works import Work
from separator.words import seconds_of

SAME = "as the song"
KARAOKE = "Vocals + instrumental"
# How our events differ from Gradio's defaults: the queue that counts is our own.
EVENT: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_limit": None,
}

#: Events that are answered at once, outside Gradio's queue: the page closes the channel of its
#: queue with the last event that waits there, and loses one that begins at that very moment.
QUICK = EVENT | {"queue": False}
_TICK = 0.2  # seconds between two looks at a job


@dataclass(frozen=True)
class Page:
    """Parts of a page that the others need.

    Attributes:
        songs: Where it takes its songs.
        choosers: Its choices of models, and how each is renewed.
    """

    songs: gr.File
    choosers: dict[Any, Callable[[], Any]]


def session(request: gr.Request, page: str) -> str:
    """Name the owner of what a page of this browser's tab starts."""
    return f"{request.session_hash}/{page}"


def visitor(request: gr.Request) -> Visitor:
    """Tell who sends a request."""
    return known_visitor(request.cookies, request.client.host if request.client else "")


def at_load(page: str) -> dict[str, Any]:
    """Return how a page's load event asks the browser for the token of its work."""
    kept = f"sessionStorage.getItem('separator-{page}')"
    address = f"new URLSearchParams(location.hash.slice(1)).get('{page}')"
    return EVENT | {"js": f"() => [{address} || {kept} || '']"}


def still_here(service: Service, request: gr.Request, work: Work) -> list[str]:
    """Return the uploads of some work that this visitor may use again."""
    me = visitor(request)
    return [
        str(file) for file in work.files if service.uploads.owns(me, str(file)) and file.exists()
    ]


async def watch(queue: Queue, job: Job, work: Work | None = None) -> AsyncIterator[str]:
    """Yield the state of a job as HTML while it lasts.

    A page that goes cancels it, unless it belongs to work that another page may ask for.
    """
    shown = ""
    try:
        while not job.ended.is_set() and not job.cancel.is_set():
            html = view.status(job, queue.place(job))
            if html != shown:
                yield html
                shown = html
            if work:
                work.touch()
            await asyncio.sleep(_TICK)
        yield view.status(job, 0)
    finally:
        if not work and not job.ended.is_set():
            queue.cancel(job)


def once_over(event: Any, run: gr.Button, cancel: gr.Button) -> None:
    """Offer `run` again, and `cancel` no more, when an event is over, however it ended.

    Not by the event itself: the page closes the channel of its queue right after that, and would
    lose one that the button began in between.
    """

    def idle() -> dict[Any, Any]:
        return {run: gr.Button(interactive=True), cancel: gr.Button(visible=False)}

    event.then(idle, None, [run, cancel], **QUICK)


def range_of(start: str, end: str) -> tuple[float, float | None]:
    """Read a range as start and duration in seconds.

    Raises:
        ConfigError: It can't be read, or ends before it begins.
    """
    first = seconds_of(start.strip() or None, "From") or 0.0
    last = seconds_of(end.strip() or None, "To")
    if last is not None and last <= first:
        raise ConfigError(f"The range ends at {end.strip()}, before it begins ({start.strip()}).")
    return first, None if last is None else last - first


def models(service: Service) -> list[tuple[str, str]]:
    """Return the models to choose from: those whose weights are here."""
    return [(card.name, card.name) for card in service.catalog.ready()]


def model_cards(service: Service) -> list[tuple[str, str]]:
    """Return the same choices, each with what it is good for and what it costs."""
    return [
        (in_short(card, service.speeds.get(card.name)), card.name)
        for card in service.catalog.ready()
    ]


def model_facts(service: Service, name: str | None) -> str:
    """Say what matters about a model as HTML."""
    if not name:
        return view.message("No model is here yet. The tab Models has some to download.")
    card = service.catalog.find(name)
    note = view.message(card.note) if card.note else ""
    return view.facts(summary(card, service.speeds.get(card.name))) + note


def stem_choices(service: Service, name: str | None) -> list[str]:
    """Return the stems of a model."""
    return list(service.catalog.find(name).stems) if name else []


def karaoke_stems(stems: Sequence[str]) -> tuple[list[str], str]:
    """Return the stems of a model that make karaoke, and the name of what they leave over.

    >>> karaoke_stems(["drums", "vocals"]), karaoke_stems(["vocals", "instrumental"])
    ((['vocals'], 'instrumental'), (['vocals', 'instrumental'], ''))
    """
    if "instrumental" in stems:
        return ["vocals", "instrumental"], ""
    return ["vocals"], "instrumental"


class Advanced:
    """The options that most people never open; `prefix` begins the names of their elements."""

    def __init__(self, prefix: str = "") -> None:
        with gr.Accordion("Advanced", open=False):
            self.format = gr.Dropdown(
                list(FORMATS), value="wav", label="Format of the stems", elem_id=f"{prefix}format"
            )
            depths = [(SAME, 0), *((f"{n} bit", n) for n in BIT_DEPTHS)]
            self.depth = gr.Dropdown(depths, value=0, label="Bit depth (wav, flac)")
            self.precision = gr.Dropdown(
                list(PRECISIONS),
                value="auto",
                label="Precision",
                elem_id=f"{prefix}precision",
            )
            self.overlap = gr.Slider(
                0,
                LIMITS["overlap"][1],
                value=0,
                step=0.05,
                label="Overlap of segments",
                info="0 is the model's own.",
                elem_id=f"{prefix}overlap",
            )
            self.shifts = gr.Slider(
                0,
                LIMITS["shifts"][1],
                value=0,
                step=1,
                label="Shifts",
                info="Passes over the song that are averaged; each takes its time.",
                elem_id=f"{prefix}shifts",
            )
        self.inputs = [self.format, self.depth, self.precision, self.overlap, self.shifts]

    @staticmethod
    def read(
        audio_format: str, depth: int, precision: str, overlap: float, shifts: float
    ) -> dict[str, Any]:
        """Turn the values of `inputs` into fields of a `Request`."""
        lossless = FORMATS[audio_format].lossless
        return {
            "audio_format": audio_format,
            "bit_depth": int(depth) if depth and lossless else None,
            "precision": precision,
            "overlap": float(overlap) or None,
            "shifts": int(shifts),
        }


def upload(path: str, **fields: Any) -> Request:
    """Make a request of an upload; Gradio's copy keeps the name of the user's file."""
    source = Path(path)
    return Request(source=source, title=fields.pop("title", source.stem), **fields)
