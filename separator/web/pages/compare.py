"""Two models on the same song, switched blindly while it plays; with references, the SDR."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from separator.errors import SeparatorError
from separator.web import compare, view
from separator.web.jobs import friendly
from separator.web.pages.common import (
    EVENT,
    QUICK,
    Page,
    at_load,
    models,
    once_over,
    range_of,
    session,
    still_here,
    upload,
    visitor,
    watch,
)
from separator.web.service import Service
from separator.web.works import Work

_INTRO = """
<div class="sep-welcome"><h2>Trust your ears</h2>
<ol><li>Choose a song and two models, or a model and an ensemble.</li>
<li>Listen to X and Y: the button, or the key <b>o</b>, switches while it plays.</li>
<li>Decide, then ask which is which. With the true stems, their SDR is told too.</li></ol></div>
"""


def build(service: Service, pages: gr.Blocks) -> Page:
    """Put the page into the layout."""
    ready = models(service)
    default = service.catalog.default()
    other = next((name for _, name in ready if name != default), default)
    with gr.Row(elem_classes="sep-columns"):
        with gr.Column(scale=1, min_width=316, elem_classes="sep-side"):
            song = gr.File(label="Song", elem_id="compare-song", height=120)
            first = gr.Dropdown(ready, value=default, label="One model", elem_id="compare-first")
            second = gr.Dropdown(
                ready, value=other, label="Another model", elem_id="compare-second"
            )
            with gr.Row(elem_classes="sep-actions"):
                run = gr.Button("Compare", variant="primary", elem_id="compare-run")
                cancel = gr.Button("Cancel", visible=False)
            with gr.Accordion("Range and references", open=False):
                with gr.Row():
                    start = gr.Textbox("", label="From", placeholder="0:00", min_width=90)
                    end = gr.Textbox("", label="To", placeholder="the end", min_width=90)
                references = gr.File(
                    label="True stems (vocals.wav, ...)",
                    file_count="multiple",
                    elem_id="compare-references",
                    height=120,
                )
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML("", elem_id="compare-status")
            place = gr.HTML("", elem_classes="sep-token")
            token = gr.Textbox("", visible=False)
            player = gr.HTML(_INTRO, elem_id="compare-player")

    async def run_both(
        request: gr.Request,
        song: str | None,
        first: str,
        second: str,
        start: str,
        end: str,
        references: list[str] | None,
    ) -> AsyncIterator[dict[Any, Any]]:
        try:
            if not song:
                raise SeparatorError("Choose a song first.")
            begin, duration = range_of(start, end)
            wanted = upload(song, model=first, start=begin, duration=duration)
            truths = [Path(path) for path in references or ()]
            owner = session(request, "compare")
            me = visitor(request).address
            job = compare.submit(service, wanted, (first, second), truths, owner, me)
        except Exception as error:
            yield {status: view.problem(friendly(error))}
            return
        async for shown in follow(service.works.begin([job], [Path(wanted.source)])):
            yield shown

    async def resume(request: gr.Request, token: str) -> AsyncIterator[dict[Any, Any]]:
        """Show a page that is loaded again what it had."""
        work = service.works.find(token, session(request, "compare"))
        if work is None:
            yield {place: ""}
            return
        yield {song: next(iter(still_here(service, request, work)), None)}
        async for shown in follow(work):
            yield shown

    async def follow(work: Work) -> AsyncIterator[dict[Any, Any]]:
        """Show how the comparison gets on, then its player."""
        job = work.jobs[0]
        yield {
            place: view.remember("compare", work.token),
            run: gr.Button(interactive=False),
            cancel: gr.Button(visible=True),
            player: "",
        }
        async for html in watch(service.queue, job, work):
            yield {status: html}
        result = view.player(job.result.token) if job.state == "done" else _INTRO
        yield {player: result}

    def stop(request: gr.Request) -> None:
        service.queue.cancel_all(session(request, "compare"))

    outputs = [status, player, place, song, run, cancel]
    for event in (
        run.click(run_both, [song, first, second, start, end, references], outputs, **EVENT),
        pages.load(resume, token, outputs, **at_load("compare")),
    ):
        once_over(event, run, cancel)
    cancel.click(stop, **QUICK)
    renewed = dict.fromkeys((first, second), lambda: gr.Dropdown(choices=models(service)))
    return Page(song, renewed)
