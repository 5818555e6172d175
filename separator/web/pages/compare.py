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
    models,
    once_over,
    range_of,
    session,
    upload,
    watch,
)
from separator.web.service import Service

_INTRO = """
<div class="sep-welcome"><h2>Trust your ears</h2>
<ol><li>Choose a song and two models, or a model and an ensemble.</li>
<li>Listen to X and Y: the button, or the key <b>o</b>, switches while it plays.</li>
<li>Decide, then ask which is which. With the true stems, their SDR is told too.</li></ol></div>
"""


def build(service: Service) -> Page:
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
            job = compare.submit(service, wanted, (first, second), truths, owner)
        except Exception as error:
            yield {status: view.problem(friendly(error))}
            return
        yield {run: gr.Button(interactive=False), cancel: gr.Button(visible=True), player: ""}
        async for html in watch(service.queue, job):
            yield {status: html}
        result = view.player(job.result.token) if job.state == "done" else _INTRO
        yield {player: result}

    def stop(request: gr.Request) -> None:
        service.queue.cancel_all(session(request, "compare"))

    event = run.click(
        run_both,
        [song, first, second, start, end, references],
        [status, player, run, cancel],
        **EVENT,
    )
    once_over(event, run, cancel)
    cancel.click(stop, **QUICK)
    renewed = dict.fromkeys((first, second), lambda: gr.Dropdown(choices=models(service)))
    return Page(song, renewed)
