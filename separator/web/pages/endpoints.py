"""The app's functions for programs: named endpoints for `gradio_client`, typed and documented."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Annotated, Any

import gradio as gr
from pydantic import Field

from separator.errors import AudioError
from separator.schema import FROM_LIST, Strict, validate
from separator.web.jobs import friendly
from separator.web.pages.common import session, upload, visitor
from separator.web.service import Service
from separator.zoo.describe import is_here, size_of

_TICK = 0.1


class _Fields(Strict):
    """What programs send; JSON lets them send anything."""

    model: str
    stems: Annotated[tuple[str, ...], FROM_LIST]
    residual: str
    start: Annotated[float, Field(ge=0)]
    duration: Annotated[float, Field(ge=0)]
    audio_format: str
    bit_depth: Annotated[int, Field(ge=0)]
    precision: str
    overlap: Annotated[float, Field(ge=0)]
    shifts: Annotated[int, Field(ge=0)]


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
        bit_depth: int = 0,
        precision: str = "auto",
        overlap: float = 0.0,
        shifts: int = 0,
    ) -> dict[str, gr.FileData]:
        """Separate a song and return the file of each stem under the stem's name.

        Args:
            song: an audio or video file.
            model: name of a model, the default one if empty; see /models.
            stems: names of the wanted stems, all if empty.
            residual: name for what these stems leave over, nothing is left over if empty.
            start: where to begin, in seconds.
            duration: how much to separate, in seconds; 0 goes to the end.
            audio_format: wav, flac, mp3, ogg, opus or m4a.
            bit_depth: 16, 24 or 32 for wav, 16 or 24 for flac; 0 is that of the song.
            precision: auto, float32 or bfloat16.
            overlap: overlap of segments, a fraction of one below 1; 0 is the model's own.
            shifts: passes over differently placed segments that are averaged; 0 for one.
        """
        given = {
            "model": model,
            "stems": stems,
            "residual": residual,
            "start": start,
            "duration": duration,
            "audio_format": audio_format,
            "bit_depth": bit_depth,
            "precision": precision,
            "overlap": overlap,
            "shifts": shifts,
        }
        try:
            fields = validate(_Fields, given, "/separate").model_dump()
            for name in ("duration", "bit_depth", "overlap"):  # 0 leaves them to the program
                fields[name] = fields[name] or None
            fields["model"] = fields["model"] or service.catalog.default() or ""
            wanted = upload(_uploaded(service, song), **fields)
            job = service.submit(wanted, session(request, "api"), visitor(request).address)
        except Exception as error:
            raise gr.Error(friendly(error), print_exception=False) from error
        try:
            while not job.ended.is_set():
                await asyncio.sleep(_TICK)
        finally:
            service.queue.cancel(job)
        if job.state != "done":
            raise gr.Error(job.error or "Cancelled.", print_exception=False)
        shared = service.share(job.result)
        return {stem: gr.FileData(path=str(path)).model_dump() for stem, path in shared.items()}

    def models() -> list[dict[str, Any]]:
        """List the models: name, description, stems, licence, size in bytes, whether it is here."""
        return [
            {
                "name": card.name,
                "description": card.description,
                "stems": list(card.stems),
                "licence": card.licence,
                "bytes": size_of(card),
                "ready": is_here(card),
            }
            for card in service.catalog.cards()
        ]

    documented = inspect.getdoc(separate)  # by itself Gradio shows the first line only
    gr.api(separate, api_name="separate", api_description=documented, concurrency_limit=None)
    gr.api(models, api_name="models")


def _uploaded(service: Service, song: Any) -> str:
    """Return the path of an upload.

    Raises:
        AudioError: It isn't one: what a program sends could name any file of this computer.
    """
    path = song.get("path") if isinstance(song, dict) else None
    if not isinstance(path, str) or not service.is_upload(Path(path)):
        raise AudioError("The song isn't an upload; pass it as handle_file('song.mp3').")
    return path
