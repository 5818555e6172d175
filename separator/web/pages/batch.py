"""Several songs at once: a table of states, and all stems in one zip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from separator.web import view
from separator.web.jobs import Job, friendly
from separator.web.pages.common import (
    EVENT,
    KARAOKE,
    QUICK,
    Advanced,
    Page,
    at_load,
    karaoke_stems,
    models,
    once_over,
    session,
    stem_choices,
    still_here,
    upload,
    visitor,
)
from separator.web.service import Service
from separator.web.works import Work

_INTRO = """
<div class="sep-welcome"><h2>Drop an album, get all its stems</h2>
<ol><li>Choose several songs, a model and the stems that you want.</li>
<li>Press <b>Separate all</b>: one after the other is done. One that fails stops none.</li>
<li>Listen to each here, and take everything away as one zip.</li></ol></div>
"""
_TICK = 0.4


def build(service: Service, pages: gr.Blocks) -> Page:
    """Put the page into the layout."""
    default = service.catalog.default()
    stems = stem_choices(service, default)
    with gr.Row(elem_classes="sep-columns"):
        with gr.Column(scale=1, min_width=316, elem_classes="sep-side"):
            songs = gr.File(label="Songs", file_count="multiple", elem_id="batch-songs", height=160)
            model = gr.Dropdown(
                models(service), value=default, label="Model", elem_id="batch-model"
            )
            wanted = gr.CheckboxGroup(stems, value=stems, label="Stems", elem_classes="sep-stems")
            karaoke = gr.Button(
                f"{KARAOKE} of all", visible="vocals" in stems, elem_id="batch-karaoke"
            )
            with gr.Row(elem_classes="sep-actions"):
                run = gr.Button("Separate all", variant="primary", elem_id="batch-run")
                cancel = gr.Button("Cancel", visible=False, elem_id="batch-cancel")
            advanced = Advanced("batch-")
        with gr.Column(scale=3, min_width=320):
            table = gr.HTML(_INTRO, elem_id="batch-table")
            place = gr.HTML("", elem_classes="sep-token")
            token = gr.Textbox("", visible=False)
            listen = gr.Dropdown([], label="Listen to", visible=False, elem_id="batch-listen")
            player = gr.HTML("", elem_id="batch-player")

    def stems_of_model(name: str) -> tuple[Any, Any]:
        choices = stem_choices(service, name)
        boxes = gr.CheckboxGroup(choices, value=choices)
        return boxes, gr.Button(visible="vocals" in choices)

    async def separate_all(
        request: gr.Request,
        files: list[str] | None,
        model: str,
        wanted: list[str],
        *options: Any,
    ) -> AsyncIterator[dict[Any, Any]]:
        if not files or not wanted:
            missing = "some songs" if not files else "at least one stem"
            yield {table: view.problem(f"Choose {missing} first.")}
            return
        stems = () if len(wanted) == len(stem_choices(service, model)) else tuple(wanted)
        fields = {"model": model, "stems": stems, **Advanced.read(*options)}
        async for shown in separate(request, files, fields):
            yield shown

    async def vocals_and_rest(
        request: gr.Request, files: list[str] | None, model: str, *options: Any
    ) -> AsyncIterator[dict[Any, Any]]:
        if not files:
            yield {table: view.problem("Choose some songs first.")}
            return
        stems, rest = karaoke_stems(stem_choices(service, model))
        wanted = {"model": model, "stems": tuple(stems), "residual": rest}
        async for shown in separate(request, files, wanted | Advanced.read(*options)):
            yield shown

    async def separate(
        request: gr.Request, files: list[str], fields: dict[str, Any]
    ) -> AsyncIterator[dict[Any, Any]]:
        owner, address = session(request, "batch"), visitor(request).address
        jobs = [_submit(service, path, fields, owner, address) for path in files]
        work = service.works.begin(jobs, [Path(file) for file in files])
        async for shown in follow(work):
            yield shown

    async def resume(request: gr.Request, token: str) -> AsyncIterator[dict[Any, Any]]:
        """Show a page that is loaded again what it had."""
        work = service.works.find(token, session(request, "batch"))
        if work is None:
            yield {place: ""}
            return
        yield {songs: still_here(service, request, work) or None}
        async for shown in follow(work):
            yield shown

    async def follow(work: Work) -> AsyncIterator[dict[Any, Any]]:
        """Show how the songs get on, then a choice of players."""
        jobs = work.jobs
        yield {
            place: view.remember("batch", work.token),
            run: gr.Button(interactive=False),
            cancel: gr.Button(visible=True),
            listen: gr.Dropdown(visible=False),
            player: "",
        }
        async for html in watch_all(service, work):
            yield {table: html}
        done = [(job.title, job.result.token) for job in jobs if job.state == "done"]
        yield {
            listen: gr.Dropdown(done, value=done[0][1] if done else None, visible=bool(done)),
        }

    def stop(request: gr.Request) -> None:
        service.queue.cancel_all(session(request, "batch"))

    def play(token: str | None) -> str:
        return view.player(token) if token else ""

    outputs = [table, place, songs, run, cancel, listen, player]
    model.change(stems_of_model, model, [wanted, karaoke], **QUICK)
    for event in (
        run.click(separate_all, [songs, model, wanted, *advanced.inputs], outputs, **EVENT),
        karaoke.click(vocals_and_rest, [songs, model, *advanced.inputs], outputs, **EVENT),
        pages.load(resume, token, outputs, **at_load("batch")),
    ):
        once_over(event, run, cancel)
    cancel.click(stop, **QUICK)
    listen.change(play, listen, player, **QUICK)
    return Page(songs, {model: lambda: gr.Dropdown(choices=models(service))})


def _submit(service: Service, path: str, fields: dict[str, Any], owner: str, address: str) -> Job:
    """Submit one song; one that is refused becomes a job that has failed."""
    request = upload(path, **fields)
    try:
        return service.submit(request, owner, address)
    except Exception as error:
        job = Job(request.title, owner, lambda job: None, state="failed", error=friendly(error))
        job.ended.set()
        return job


async def watch_all(service: Service, work: Work) -> AsyncIterator[str]:
    """Yield the table of states while the work lasts; what is done stays until all is."""
    shown = ""
    while (html := _table(service, work.jobs)) != shown or not work.is_over:
        if html != shown:
            yield html
        shown = html
        work.touch()
        await asyncio.sleep(_TICK)


def _table(service: Service, jobs: Sequence[Job]) -> str:
    rows = [(job.title, job.state, _detail(service, job)) for job in jobs]
    html = view.table("Songs", ["Song", "State", "Details"], rows, [job.state for job in jobs])
    tokens = [job.result.token for job in jobs if job.state == "done"]
    if tokens and all(job.ended.is_set() for job in jobs):
        query = "&".join(f"token={token}" for token in tokens)
        html += (
            f'<p><a class="sep-button" download href="stems.zip?{query}">All stems (zip)</a></p>'
        )
    return html


def _detail(service: Service, job: Job) -> str:
    if job.state == "failed":
        return job.error or ""
    if job.state == "running":
        share = "" if job.fraction is None else f' value="{job.fraction:.3f}"'
        bar = f'<progress max="1"{share} aria-label="Progress"></progress>'
        return view.Html(f"{bar} {view.detail(job)}")
    if job.state == "done":
        notes = " ".join(job.result.notes)
        seconds = int(job.result.samples / job.result.sample_rate)
        return notes or f"{seconds // 60}:{seconds % 60:02d} of music"
    if job.state == "waiting" and (place := service.queue.place(job)):
        return f"{place} before it"
    return ""
