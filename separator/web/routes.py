"""What the player asks the server for: its own code, pictures, sound and downloads.

Nothing but a token of 128 random bits opens a song, and nothing in an address becomes a path.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from separator.errors import AudioError
from separator.web.songs import Song, dump

if TYPE_CHECKING:
    from fastapi import FastAPI

    from separator.web.service import Service

STATIC = Path(__file__).parent / "static"
_MOST_SAMPLES = 1 << 20  # per request, so that nobody asks for an hour at once
_PRIVATE = {"Cache-Control": "private, max-age=3600"}

# The browser may talk to this server alone; frames of other sites may not show the page.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "object-src 'none'; frame-ancestors 'self'; form-action 'self'"
)


def add_routes(app: "FastAPI", service: "Service") -> None:
    """Give the application the player's addresses, all below `/stems`."""
    from fastapi import HTTPException, Query, Request, Response
    from fastapi.responses import FileResponse
    from fastapi.staticfiles import StaticFiles
    from starlette.background import BackgroundTask
    from starlette.middleware.base import RequestResponseEndpoint

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
        try:
            gains = {
                int(key): min(4.0, float(value)) for key, value in request.query_params.items()
            }
            path = song.mix(gains)
        except (AudioError, ValueError) as error:
            raise HTTPException(400, str(error)) from error
        return FileResponse(
            path, filename=f"{song.title} - mix.wav", background=BackgroundTask(path.unlink)
        )

    for address, function in {
        "player.json": player_data,
        "sound": sound,
        "spectrogram/{number}": spectrogram,
        "track/{number}": one_stem,
        "stems.zip": archive,
        "mix.wav": mix,
    }.items():
        app.add_api_route(f"/stems/{{token}}/{address}", function, include_in_schema=False)
    app.mount("/stems-static", StaticFiles(directory=STATIC), name="stems-static")

    @app.middleware("http")
    async def guard(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        return response
