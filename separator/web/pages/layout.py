"""All pages together."""

from __future__ import annotations

from typing import Any

import gradio as gr

from separator.web.pages import batch, compare, endpoints, separate, zoo
from separator.web.pages.common import QUICK, session
from separator.web.service import Service

TITLE = "Separator"


def build_pages(service: Service) -> gr.Blocks:
    """Lay out all pages; what a closed tab began is stopped, unless it soon comes back."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as pages:
        gr.HTML(f'<h1 class="sep-brand">{TITLE}</h1>')
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Separate", id="separate"):
                one = separate.build(service, pages)
            with gr.Tab("Batch", id="batch"):
                several = batch.build(service, pages)
            with gr.Tab("Compare", id="compare"):
                two = compare.build(service, pages)
            with gr.Tab("Models", id="models"):
                zoo.build(service, pages, one.choosers | several.choosers | two.choosers)
        endpoints.build(service)

        def take_to_batch(files: list[str]) -> dict[Any, Any]:
            """Open the page for several songs if that is how many were dropped on the first."""
            if len(files) < 2:
                return {one.songs: gr.skip()}
            return {one.songs: None, several.songs: files, tabs: gr.Tabs(selected="batch")}

        one.songs.upload(take_to_batch, one.songs, [one.songs, several.songs, tabs], **QUICK)

        def closed(request: gr.Request) -> None:
            """Stop what no page can find again: downloads, and what programs asked for."""
            service.queue.cancel_all(session(request, "api"))
            service.downloads.cancel_all(session(request, "zoo"))

        pages.unload(closed)
    pages.queue(max_size=200)
    return pages
