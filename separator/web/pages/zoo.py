"""The models: what there is, what it is worth, and getting, deleting or adding one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from separator.cards import AnyCard
from separator.downloads import megabytes
from separator.web import view
from separator.web.catalog import best_score, place, size_of, stems_of
from separator.web.jobs import friendly
from separator.web.pages.common import EVENT, model_facts, models, session, watch
from separator.web.service import Service

_ANY = "any"


def build(service: Service, pages: gr.Blocks, choosers: Sequence[gr.Dropdown]) -> None:
    """Put the page into the layout; `choosers` are the other pages' choices of models."""
    cards = service.catalog.cards()
    stem_names = [_ANY, *stems_of(cards)]
    licences = [_ANY, *sorted({card.licence for card in cards})]
    manage = service.settings.may_manage
    with gr.Row():
        words = gr.Textbox("", label="Search", placeholder="name or description", scale=2)
        stem = gr.Dropdown(stem_names, value=_ANY, label="Stem", elem_id="zoo-stem")
        licence = gr.Dropdown(licences, value=_ANY, label="Licence")
    with gr.Row(elem_classes="sep-columns"):
        with gr.Column(scale=5, min_width=320):
            table = gr.HTML(_table(cards, None), elem_id="zoo-table")
        with gr.Column(scale=2, min_width=316, elem_classes="sep-side"):
            chosen = gr.Dropdown(
                [card.name for card in cards],
                value=service.catalog.default(),
                label="One of them",
                elem_id="zoo-model",
            )
            facts = gr.HTML(model_facts(service, service.catalog.default()))
            status = gr.HTML("", elem_id="zoo-status")
            with gr.Row(visible=manage, elem_classes="sep-actions"):
                get = gr.Button("Download", variant="primary", elem_id="zoo-get")
                stop = gr.Button("Cancel", visible=False)
                delete = gr.Button("Delete", elem_id="zoo-delete")
            with gr.Accordion("Add a model", open=False, visible=manage):
                gr.HTML(
                    view.message(
                        "A checkpoint and the YAML that belongs to it. Weights are read as data; "
                        "a file that would run code is refused."
                    )
                )
                checkpoint = gr.File(label="Checkpoint", height=100, elem_id="zoo-checkpoint")
                config = gr.File(label="YAML", height=100, elem_id="zoo-yaml")
                name = gr.Textbox("", label="Name", placeholder="made from the file's name")
                add = gr.Button("Add", elem_id="zoo-add")

    def refreshed() -> dict[Any, Any]:
        """Show the zoo as it is now, here and on the other pages."""
        ready = models(service)
        return {
            table: _table(service.catalog.cards(), None),
            **{chooser: gr.Dropdown(choices=ready) for chooser in choosers},
        }

    def find(words: str, stem: str, licence: str) -> tuple[str, Any]:
        found = [card for card in service.catalog.cards() if _matches(card, words, stem, licence)]
        names = [card.name for card in found]
        return _table(found, None if stem == _ANY else stem), gr.Dropdown(names)

    def describe(name: str | None) -> tuple[str, str]:
        return model_facts(service, name), ""

    async def download(request: gr.Request, name: str) -> AsyncIterator[dict[Any, Any]]:
        try:
            job = service.download(name, session(request, "zoo"))
        except Exception as error:
            yield {status: view.problem(friendly(error))}
            return
        yield {stop: gr.Button(visible=True)}
        async for html in watch(service.downloads, job):
            yield {status: html}
        end = {status: view.message(f"{name} is ready to use.")} if job.state == "done" else {}
        yield {
            stop: gr.Button(visible=False),
            facts: model_facts(service, name),
            **refreshed(),
            **end,
        }

    def cancel(request: gr.Request) -> None:
        service.downloads.cancel_all(session(request, "zoo"))

    def remove(name: str) -> dict[Any, Any]:
        try:
            service.require_management()
            service.catalog.delete(name)
        except Exception as error:
            return {status: view.problem(friendly(error))}
        return {status: view.message(f"{name} was deleted."), **refreshed()}

    def add_model(checkpoint: str | None, config: str | None, name: str) -> dict[Any, Any]:
        if not (checkpoint and config):
            return {status: view.problem("Choose a checkpoint and its YAML first.")}
        try:
            service.require_management()
            card = service.catalog.add(Path(checkpoint), Path(config), name)
        except Exception as error:
            return {status: view.problem(friendly(error))}
        text = f"{card.name} was added: {', '.join(card.stems)}."
        names = [each.name for each in service.catalog.cards()]
        return {status: view.message(text), chosen: gr.Dropdown(names), **refreshed()}

    pages.load(refreshed, outputs=[table, *choosers], **EVENT)
    for field in (words, stem, licence):
        field.change(find, [words, stem, licence], [table, chosen], **EVENT)
    chosen.change(describe, chosen, [facts, status], **EVENT)
    everything = [status, table, facts, stop, chosen, *choosers]
    get.click(download, chosen, everything, **EVENT)
    stop.click(cancel, queue=False, **EVENT)
    delete.click(remove, chosen, everything, **EVENT)
    add.click(add_model, [checkpoint, config, name], everything, **EVENT)


def _matches(card: AnyCard, words: str, stem: str, licence: str) -> bool:
    text = f"{card.name} {card.description} {' '.join(card.stems)}".lower()
    return (
        all(word in text for word in words.lower().split())
        and (stem == _ANY or stem in (each.lower() for each in card.stems))
        and licence in (_ANY, card.licence)
    )


def _table(cards: Sequence[AnyCard], stem: str | None) -> str:
    if not cards:
        return view.message("No model is like that.")
    heads = ["Model", "Stems", "Weights", "Published", "Licence"]
    return view.table(f"{len(cards)} models", heads, [_row(card, stem) for card in cards])


def _row(card: AnyCard, stem: str | None) -> tuple[str, ...]:
    best = best_score(card, stem)
    score = f"{best[0]} {best[1]:.1f} dB" if best else ""
    size = f"{megabytes(size_of(card))}<br><span class='soft'>{place(card)}</span>"
    stems = ", ".join(card.stems[:6])
    if len(card.stems) > 6:
        stems += f" and {len(card.stems) - 6} more"
    weights = view.Html(f'<span class="unit">{size}</span>')
    return card.name, stems, weights, score, card.licence
