"""The models: what there is, what it is worth, and getting, deleting or adding one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from separator.errors import SeparatorError
from separator.web import view
from separator.web.adding import add_files, without_folders
from separator.web.jobs import friendly
from separator.web.pages.common import EVENT, QUICK, model_facts, session, watch
from separator.web.service import Service
from separator.words import megabytes
from separator.zoo.cards import AnyCard
from separator.zoo.describe import best_score, is_here, place_of, size_of, stems_of
from separator.zoo.removing import can_be_removed

_ANY = "any"
_PICK = """
element.addEventListener("click", (event) => {
  const name = event.target.closest("[data-model]")?.dataset.model;
  if (!name) return;
  trigger("click", { name });
  if (innerWidth <= 640) document.querySelector("#zoo-model").scrollIntoView();  // it lies below
});
"""


def build(service: Service, pages: gr.Blocks, choosers: Mapping[Any, Callable[[], Any]]) -> None:
    """Put the page into the layout.

    Args:
        choosers: The other pages' choices of models, and how each is renewed.
    """
    cards = service.catalog.cards()
    stem_names = [_ANY, *stems_of(cards)]
    licences = [_ANY, *sorted({card.licence for card in cards})]
    manage = service.settings.may_manage
    with gr.Row():
        words = gr.Textbox("", label="Search", placeholder="name or description", scale=2)
        stem = gr.Dropdown(stem_names, value=_ANY, label="Stem", elem_id="zoo-stem")
        licence = gr.Dropdown(licences, value=_ANY, label="Licence", elem_id="zoo-licence")
    with gr.Row(elem_classes="sep-columns"):
        with gr.Column(scale=5, min_width=320):
            left_out = gr.HTML("", elem_id="zoo-left-out", visible=manage)
            table = gr.HTML(
                view.message("Reading the cards …"),  # they come when the page is there
                elem_id="zoo-table",
                js_on_load=_PICK,
                apply_default_css=False,
            )
        with gr.Column(scale=2, min_width=316, elem_classes="sep-side"):
            chosen = gr.Dropdown(
                [card.name for card in cards],
                value=service.catalog.default(),
                label="Model",
                elem_id="zoo-model",
            )
            facts = gr.HTML(model_facts(service, service.catalog.default()), elem_id="zoo-facts")
            status = gr.HTML("", elem_id="zoo-status")
            with gr.Row(visible=manage, elem_classes="sep-actions"):
                get = gr.Button("Download", variant="primary", interactive=False, elem_id="zoo-get")
                stop = gr.Button("Cancel", visible=False, elem_id="zoo-stop")
                delete = gr.Button("Delete", interactive=False, elem_id="zoo-delete")
            with gr.Accordion("Add a model", open=False, visible=manage):
                gr.HTML(
                    view.message(
                        "A checkpoint (ckpt, pt, pth, th, safetensors, onnx), with its YAML or "
                        "JSON if it has one; or all files of a bag of Demucs, or of Open-Unmix' "
                        "folder. Weights are read as data; a file that would run code is refused."
                    )
                )
                files = gr.File(
                    label="Files", file_count="multiple", height=140, elem_id="zoo-files"
                )
                name = gr.Textbox("", label="Name", placeholder="made from the file's name")
                named = gr.Textbox(
                    "",
                    label="Stems",
                    placeholder="a, b, c: only if no file names them",
                    elem_id="zoo-stems",
                )
                add = gr.Button("Add", elem_id="zoo-add")

    def refreshed() -> dict[Any, Any]:
        """Show the zoo as it is now, here and on the other pages."""
        return {
            table: _table(service.catalog.cards(), None),
            left_out: "".join(map(view.problem, _left_out(service))),
            **{chooser: renewed() for chooser, renewed in choosers.items()},
        }

    def find(words: str, stem: str, licence: str, name: str | None) -> tuple[str, Any]:
        """Show what is like that; the model that is chosen stays so."""
        found = [card for card in service.catalog.cards() if _matches(card, words, stem, licence)]
        names = [card.name for card in found]
        if name and name not in names:
            names.insert(0, name)
        return _table(found, None if stem == _ANY else stem), gr.Dropdown(names)

    def shown(name: str | None) -> dict[Any, Any]:
        """Show one model, and what can be done with it."""
        card = service.catalog.find(name) if name else None
        return {
            facts: model_facts(service, name),
            get: gr.Button(interactive=card is not None and not is_here(card)),
            delete: gr.Button(interactive=card is not None and can_be_removed(card)),
        }

    def describe(name: str | None) -> dict[Any, Any]:
        return {**shown(name), status: ""}

    def pick(event: gr.EventData) -> dict[Any, Any]:
        name = service.catalog.find(event.name).name
        return {**describe(name), chosen: name}

    async def download(request: gr.Request, name: str) -> AsyncIterator[dict[Any, Any]]:
        try:
            job = service.download(name, session(request, "zoo"))
        except Exception as error:
            yield {status: view.problem(friendly(error))}
            return
        yield {stop: gr.Button(visible=True), get: gr.Button(interactive=False)}
        async for html in watch(service.downloads, job):
            yield {status: html}
        if job.state == "done":
            yield {status: view.message(f"{name} is ready to use.")}

    def downloaded(name: str | None) -> dict[Any, Any]:
        return {stop: gr.Button(visible=False), **shown(name), **refreshed()}

    def cancel(request: gr.Request) -> None:
        service.downloads.cancel_all(session(request, "zoo"))

    def remove(name: str) -> dict[Any, Any]:
        try:
            service.require_management()
            service.catalog.delete(name)
        except Exception as error:
            return {status: view.problem(friendly(error))}
        left = [card.name for card in service.catalog.cards()]
        kept = name if name in left else service.catalog.default()
        return {
            status: view.message(f"{name} was deleted."),
            chosen: gr.Dropdown(left, value=kept),
            **shown(kept),
            **refreshed(),
        }

    def add_model(files: list[str] | None, name: str, named: str) -> dict[Any, Any]:
        try:
            service.require_management()
            if not files:
                raise SeparatorError("Choose the model's files first.")
            stems = [stem.strip() for stem in named.split(",") if stem.strip()]
            card = add_files([Path(file) for file in files], stems=stems, name=name.strip())
        except Exception as error:
            return {status: view.problem(friendly(error))}
        names = [each.name for each in service.catalog.cards()]
        return {
            status: view.message(f"{card.name} was added: {', '.join(card.stems)}."),
            chosen: gr.Dropdown(names, value=card.name),
            **shown(card.name),
            **refreshed(),
        }

    pages.load(refreshed, outputs=[table, left_out, *choosers], **QUICK)
    for field in (words, stem, licence):
        field.change(find, [words, stem, licence, chosen], [table, chosen], **QUICK)
    chosen.input(describe, chosen, [facts, status, get, delete], **QUICK)
    table.click(pick, None, [chosen, facts, status, get, delete], **QUICK)
    everything = [status, table, left_out, facts, get, stop, delete, chosen, *choosers]
    # What is offered next follows outside the queue, as in `once_over`.
    get.click(download, chosen, [status, stop, get], **EVENT).then(
        downloaded, chosen, everything, **QUICK
    )
    stop.click(cancel, **QUICK)
    delete.click(remove, chosen, everything, **QUICK)
    add.click(lambda: view.message("Reading the files …"), None, status, **QUICK).then(
        add_model, [files, name, named], everything, **QUICK
    )


def _left_out(service: Service) -> list[str]:
    """Say which cards can't be used and why, without the server's folders."""
    return [f"Left out: {without_folders(problem)}" for problem in service.catalog.problems()]


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
    size = f"{megabytes(size_of(card))}<br><span class='soft'>{place_of(card)}</span>"
    stems = ", ".join(card.stems[:6])
    if len(card.stems) > 6:
        stems += f" and {len(card.stems) - 6} more"
    weights = view.Html(f'<span class="unit">{size}</span>')
    name = escape(card.name)
    pick = view.Html(f'<button type="button" class="pick" data-model="{name}">{name}</button>')
    return pick, stems, weights, score, card.licence
