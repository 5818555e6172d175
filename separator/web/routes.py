"""What the player asks the server for: its own code, pictures, sound and downloads.

Nothing but a token of 128 random bits opens a song, and nothing in an address becomes a path.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

# At the top, for FastAPI reads the annotations of the addresses' functions.
from fastapi import HTTPException, Query, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask

from separator.errors import AudioError
from separator.web.songs import Song, dump

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from separator.web.service import Service

STATIC = Path(__file__).parent / "static"
_MOST_SAMPLES = 1 << 20  # per request, so that nobody asks for an hour at once
_MOST_SONGS = 500
_PRIVATE = {"Cache-Control": "private, max-age=3600"}

# The browser may talk to this server alone; frames of other sites may not show the page.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "object-src 'none'; frame-ancestors 'self'; form-action 'self'"
)
_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]


def add_routes(app: FastAPI, service: Service) -> None:
    """Give the application the player's addresses, all below `/stems`."""

    def song_of(token: str) -> Song:
        try:
            return service.library.get(token)
        except AudioError as error:
            raise HTTPException(404, str(error)) from error

    def player_data(token: str) -> Response:
        return Response(dump(song_of(token)), media_type="application/json", headers=_PRIVATE)

    def sound(token: str, start: int = Query(0, ge=0), count: int = Query(ge=1)) -> Response:
        song = song_of(token)
        pcm = song.pcm(start, min(count, _MOST_SAMPLES))
        return Response(pcm, media_type="application/octet-stream", headers=_PRIVATE)

    def spectrogram(token: str, number: int) -> Response:
        song = song_of(token)
        if not 0 <= number < len(song.overviews):
            raise HTTPException(404, "No such track.")
        picture = song.overviews[number].spectrogram.tobytes()
        return Response(picture, media_type="application/octet-stream", headers=_PRIVATE)

    def one_stem(token: str, number: int) -> FileResponse:
        song = song_of(token)
        if not 0 <= number < len(song.tracks):
            raise HTTPException(404, "No such track.")
        track = song.tracks[number]
        return FileResponse(track.path, filename=song.file_name(track))

    def archive(token: str) -> FileResponse:
        song = song_of(token)
        return FileResponse(song.archive(), filename=f"{song.title} - stems.zip")

    def mix(token: str, request: Request) -> FileResponse:
        song = song_of(token)
        wanted = request.query_params.items()
        try:
            path = song.mix({int(key): min(4.0, float(value)) for key, value in wanted})
        except (AudioError, ValueError) as error:
            raise HTTPException(400, str(error)) from error
        return FileResponse(
            path, filename=f"{song.title} - mix.wav", background=BackgroundTask(path.unlink)
        )

    def truth(token: str) -> dict[str, Any]:
        return song_of(token).truth

    def several(request: Request) -> FileResponse:
        songs = []
        for token in request.query_params.getlist("token")[:_MOST_SONGS]:
            with suppress(AudioError):  # one that is gone takes no other with it
                songs.append(service.library.get(token))
        if not songs:
            raise HTTPException(404, "These results are no longer here; separate the songs again.")
        path = service.library.bundle(songs)
        return FileResponse(path, filename="stems.zip", background=BackgroundTask(path.unlink))

    addresses: dict[str, Callable[..., Any]] = {
        "player.json": player_data,
        "sound": sound,
        "spectrogram/{number}": spectrogram,
        "track/{number}": one_stem,
        "stems.zip": archive,
        "mix.wav": mix,
        "truth": truth,
    }
    for address, function in addresses.items():
        app.add_api_route(f"/stems/{{token}}/{address}", function)
    app.add_api_route("/stems.zip", several)
    app.mount("/stems-static", StaticFiles(directory=STATIC), name="stems-static")
    app.add_middleware(Guard)


class Guard:
    """Headers that keep a browser from talking to, or being framed by, other hosts."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and its answer back, with our headers."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self.app(scope, receive, with_headers)
