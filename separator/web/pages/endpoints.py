"""The app's functions for programs: named endpoints for `gradio_client`, typed and documented."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr

from separator.web.catalog import place, size_of
from separator.web.jobs import friendly
from separator.web.pages.common import session, upload
from separator.web.service import Service

_TICK = 0.1


def build(service: Service) -> None:
    """Add the endpoints to the layout; they have no place on a page."""

    async def separate(
        request: gr.Request,
        song: gr.FileData,
        model: str = "",
        stems: list[str] = [],  # noqa: B006 (Gradio reads defaults from the signature)
        residual: str = "",
        start: float = 0.0,
        duration: float = 0.0,
        audio_format: str = "wav",
    ) -> list[gr.FileData]:
        """Separate a song and return a file for each stem, named after it.

        Args:
            song: an audio or video file.
            model: name of a model, the default one if empty; see /models.
            stems: names of the wanted stems, all if empty.
            residual: name for what these stems leave over, nothing is left over if empty.
            start: where to begin, in seconds.
            duration: how much to separate, in seconds; 0 goes to the end.
            audio_format: wav, flac, mp3, ogg, opus or m4a.
        """
        path = song["path"] if isinstance(song, dict) else song.path
        try:
            wanted = upload(
                path,
                model=model or service.catalog.default() or "",
                stems=tuple(stems),
                residual=residual,
                start=start,
                duration=duration or None,
                audio_format=audio_format,
            )
            job = service.submit(wanted, session(request, "api"))
        except Exception as error:
            raise gr.Error(friendly(error), print_exception=False) from error
        try:
            while not job.ended.is_set():
                await asyncio.sleep(_TICK)
        finally:
            service.queue.cancel(job)
        if job.state != "done":
            raise gr.Error(job.error or "Cancelled.", print_exception=False)
        return [
            gr.FileData(path=str(track.path), orig_name=f"{track.name}{track.path.suffix}")
            for track in job.result.tracks[1:]
        ]

    def models() -> list[dict[str, Any]]:
        """List the models: name, description, stems, licence, size in bytes, whether it is here."""
        return [
            {
                "name": card.name,
                "description": card.description,
                "stems": list(card.stems),
                "licence": card.licence,
                "bytes": size_of(card),
                "ready": place(card) in ("ready", "downloaded"),
            }
            for card in service.catalog.cards()
        ]

    gr.api(separate, api_name="separate", concurrency_limit=None)
    gr.api(models, api_name="models")
