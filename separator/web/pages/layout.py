"""All pages together."""

from __future__ import annotations

import gradio as gr

from separator.web.pages import batch, compare, endpoints, separate, zoo
from separator.web.service import Service

TITLE = "Separator"


def build_pages(service: Service) -> gr.Blocks:
    """Lay out all pages; a closed tab stops what it began."""
    kept = round(service.settings.keep_seconds)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, kept)) as pages:
        gr.HTML(f'<h1 class="sep-brand">{TITLE}</h1>')
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Separate", id="separate"):
                choosers = separate.build(service)
            with gr.Tab("Batch", id="batch"):
                choosers |= batch.build(service)
            with gr.Tab("Compare", id="compare"):
                choosers |= compare.build(service)
            with gr.Tab("Models", id="models"):
                zoo.build(service, pages, choosers)
        endpoints.build(service)

        def closed(request: gr.Request) -> None:
            for queue in (service.queue, service.downloads):
                queue.cancel_all(f"{request.session_hash}/")

        pages.unload(closed)
    pages.queue(max_size=200)
    return pages
