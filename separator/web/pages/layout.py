"""All pages together."""

from __future__ import annotations

import gradio as gr

from separator.web.pages import separate
from separator.web.service import Service

TITLE = "Separator"


def build_pages(service: Service) -> gr.Blocks:
    """Lay out all pages; a closed tab stops what it began."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as pages:
        gr.HTML(f'<h1 class="sep-brand">{TITLE}</h1>')
        with gr.Tabs(elem_id="tabs"), gr.Tab("Separate", id="separate"):
            separate.build(service)

        def closed(request: gr.Request) -> None:
            service.queue.cancel_all(f"{request.session_hash}/")

        pages.unload(closed)
    return pages.queue(max_size=200)
