"""The first page: one song in, its stems out, to play with at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from separator.errors import SeparatorError
from separator.web import view
from separator.web.jobs import friendly
from separator.web.pages.common import (
    EVENT,
    KARAOKE,
    QUICK,
    Advanced,
    Page,
    at_load,
    karaoke_stems,
    model_cards,
    model_facts,
    once_over,
    range_of,
    session,
    stem_choices,
    still_here,
    upload,
    visitor,
    watch,
)
from separator.web.service import Service
from separator.web.works import Work
from separator.zoo.cards import leftover_name

_WELCOME = """
<div class="sep-welcome">
<h2>Drop a song, get its stems</h2>
<ol><li>Choose a file (of any audio format, or a video), or record one. Several go to
the tab Batch.</li>
<li>Press <b>Separate</b>. Nothing leaves the computer that this page comes from.</li>
<li>Play the stems here: solo, mute, loop, compare, download.</li></ol></div>
"""


def build(service: Service, pages: gr.Blocks) -> Page:
    """Put the page into the layout."""
    default = service.catalog.default()
    stems = stem_choices(service, default)
    with gr.Row(elem_classes="sep-columns"):
        with gr.Column(scale=1, min_width=316, elem_classes="sep-side"):
            song = gr.File(label="Song", file_count="multiple", elem_id="song", height=120)
            gr.HTML(view.recorder("#song"))
            model_choice = gr.Radio(
                model_cards(service),
                value=default,
                label="Model",
                elem_id="model",
                elem_classes="sep-cards",
            )
            wanted = gr.CheckboxGroup(
                stems, value=stems, label="Stems", elem_id="stems", elem_classes="sep-stems"
            )
            karaoke = gr.Button(KARAOKE, visible="vocals" in stems, elem_id="karaoke")
            with gr.Row(elem_classes="sep-actions"):
                run = gr.Button("Separate", variant="primary", elem_id="separate")
                cancel = gr.Button("Cancel", visible=False, elem_id="cancel")
            with gr.Accordion("About this model", open=False):
                facts = gr.HTML(model_facts(service, default))
            with gr.Accordion("Range and instrumental", open=False):
                rest = gr.Checkbox(
                    False,
                    label="Also what these stems leave over",
                    info="Of vocals alone, that is the instrumental.",
                    elem_id="rest",
                    container=False,
                )
                with gr.Row():
                    start = gr.Textbox("", label="From", placeholder="0:00", min_width=90)
                    end = gr.Textbox("", label="To", placeholder="the end", min_width=90)
            advanced = Advanced()
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML("", elem_id="status")
            place = gr.HTML("", elem_classes="sep-token")
            token = gr.Textbox("", visible=False)
            player = gr.HTML(_WELCOME, elem_id="player")
            demo = gr.Button("Try it with the demo song", elem_id="demo")

    def describe(name: str) -> tuple[Any, str, Any]:
        choices = stem_choices(service, name)
        boxes = gr.CheckboxGroup(choices, value=choices)
        return boxes, model_facts(service, name), gr.Button(visible="vocals" in choices)

    async def separate_song(
        request: gr.Request,
        songs: list[str] | None,
        model: str,
        wanted: list[str],
        rest: bool,
        start: str,
        end: str,
        *options: Any,
    ) -> AsyncIterator[dict[Any, Any]]:
        """Separate one song; the result is the player's HTML."""
        try:
            if not songs:
                raise SeparatorError("Choose a song first, or record one.")
            if not wanted:
                raise SeparatorError("Choose at least one stem.")
            first, duration = range_of(start, end)
            everything = set(wanted) == set(stem_choices(service, model))
            job = service.submit(
                upload(
                    songs[0],
                    model=model,
                    stems=() if everything else tuple(wanted),
                    residual=leftover_name(service.catalog.find(model), wanted) if rest else "",
                    start=first,
                    duration=duration,
                    **Advanced.read(*options),
                ),
                session(request, "separate"),
                visitor(request).address,
            )
        except Exception as error:
            yield {status: view.problem(friendly(error))}
            return
        async for shown in follow(service.works.begin([job], [Path(songs[0])])):
            yield shown

    async def follow(work: Work) -> AsyncIterator[dict[Any, Any]]:
        """Show how a song gets on, then its player."""
        job = work.jobs[0]
        yield {
            place: view.remember("separate", work.token),
            run: gr.Button(interactive=False),
            cancel: gr.Button(visible=True),
            demo: gr.Button(visible=False),
            player: "",
        }
        async for html in watch(service.queue, job, work):
            yield {status: html}
        if job.state == "done":
            cards = gr.Radio(choices=model_cards(service))  # one of them has a new speed
            yield {player: view.player(job.result.token), model_choice: cards}
        else:
            yield {player: _WELCOME, demo: gr.Button(visible=True)}

    async def resume(request: gr.Request, token: str) -> AsyncIterator[dict[Any, Any]]:
        """Show a page that is loaded again what it had."""
        work = service.works.find(token, session(request, "separate"))
        if work is None:
            yield {place: ""}
            return
        yield {song: still_here(service, request, work) or None}
        async for shown in follow(work):
            yield shown

    async def vocals_and_rest(
        request: gr.Request, songs: list[str] | None, model: str, *others: Any
    ) -> AsyncIterator[dict[Any, Any]]:
        """Separate the singing from all else, whatever is chosen."""
        wanted, rest = karaoke_stems(stem_choices(service, model))
        async for shown in separate_song(request, songs, model, wanted, bool(rest), *others):
            yield shown

    def demo_song() -> list[str]:
        """Return the song where Gradio would copy it, so that the page may name it again."""
        path = save_file_to_cache(service.demo_song(), str(service.uploads.folder))
        service.uploads.open_to_all(Path(path))
        return [path]

    def stop(request: gr.Request) -> None:
        service.queue.cancel_all(session(request, "separate"))

    outputs = [status, player, place, song, model_choice, run, cancel, demo]
    inputs = [song, model_choice, wanted, rest, start, end, *advanced.inputs]
    model_choice.change(describe, model_choice, [wanted, facts, karaoke], **QUICK)
    chosen = demo.click(demo_song, None, song, **QUICK)
    for event in (
        run.click(separate_song, inputs, outputs, **EVENT),
        chosen.then(separate_song, inputs, outputs, **EVENT),
        karaoke.click(
            vocals_and_rest,
            [song, model_choice, start, end, *advanced.inputs],
            outputs,
            **EVENT,
        ),
        pages.load(resume, token, outputs, **at_load("separate")),
    ):
        once_over(event, run, cancel)
    cancel.click(stop, **QUICK)
    return Page(song, {model_choice: lambda: gr.Radio(choices=model_cards(service))})
