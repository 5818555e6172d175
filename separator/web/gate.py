"""The gate before all addresses: who may come in, by which door, and with which files.

```
request ──> Host, Origin ──> log-in ──> one of our addresses ──> its size ──> its files ──> app
```
Gradio has many more addresses than the page and programs need, and copies any file that an event
names. So what isn't listed here doesn't exist, and a request may name a file only if the same
visitor has sent it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from separator.errors import SeparatorError
from separator.web.login import Login, TooManyAttempts
from separator.web.uploads import COOKIE, Uploads, Visitor, known_visitor

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from separator.web.settings import AppSettings

_MOST_BYTES = 4_000_000  # of a request that isn't an upload; thousands of names of files fit
_TOO_MUCH = (
    "Your uploads take all the room that one visitor has here. Separate those that are here first, "
    "or try again when they have been deleted, in an hour."
)
_UPLOAD, _LOGIN = "/gradio_api/upload", "/login"

#: What is shown before anybody has logged in: the page that asks for it.
_OPEN = re.compile(
    r"/|/(theme\.css|favicon\.ico|robots\.txt|logout)|/(assets|static|svelte|stems-static)/.+"
    r"|/gradio_api/(startup-events|app_id|user|login_check|theme\.css)"
)
_GET = re.compile(
    r"/(config|openapi\.json)|/stems/.+|/stems\.zip"
    r"|/gradio_api/(info|openapi\.json|upload_progress|queue/data|queue/status|heartbeat/[^/]+)"
    r"|/gradio_api/call/(v2/)?[^/]+/[^/]+|/gradio_api/file=(?!\w+:).+"
)
_POST = re.compile(
    r"/gradio_api/(upload|cancel|reset|queue/join)|/gradio_api/(run|api|call|call/v2)/[^/]+"
)


class Refused(SeparatorError):
    """A request that goes no further.

    Args:
        status: HTTP's number for the reason.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Gate:
    """Door in front of an application, which lets requests through or answers why not.

    Args:
        uploads: Files that visitors have sent.
        is_logged_in: Tells whether one of the values of a request's cookies opens the app.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: AppSettings,
        uploads: Uploads,
        is_logged_in: Callable[[Collection[str]], bool],
    ) -> None:
        self.app = app
        self.settings = settings
        self.uploads = uploads
        self.is_logged_in = is_logged_in
        self.login = Login()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it in a line."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # the app has no other doors
        try:
            await self._pass(scope, receive, send)
        except Refused as refusal:
            await _answer(refusal, scope, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        self._check_hosts(headers)
        cookies = _cookies(headers)
        scope, path = self._inside(scope)
        self._check_address(scope["method"], path, cookies)
        visitor, send = _known(scope, cookies, send)
        if scope["method"] != "POST":
            await self.app(scope, receive, send)
        elif path == _UPLOAD:
            await self._upload(visitor, scope, receive, send)
        elif path == _LOGIN:
            await self._login(visitor, scope, receive, send)
        else:
            body = await _body(receive)
            self._check_files(body, visitor)
            await self.app(scope, _again(body, receive), send)

    def _check_hosts(self, headers: dict[str, bytes]) -> None:
        """Refuse a name that isn't ours (DNS rebinding), and pages that come from elsewhere."""
        host = headers.get("host", b"").decode("latin-1").lower()
        if not self.settings.is_called(_name(host)):
            raise Refused(
                403,
                f"This app isn't known as '{_name(host)}'. If that is its name, start it with "
                f"--allowed-host {_name(host)}.",
            )
        if "origin" in headers:
            origin = headers["origin"].decode("latin-1").lower()
            place = urlsplit(origin).netloc
            if place != host and _name(place) not in self.settings.allowed_hosts:
                raise Refused(
                    403,
                    f"Requests from '{origin}' are refused. If that is where this app is found, "
                    f"start it with --allowed-host {_name(place) or 'NAME'}.",
                )

    def _inside(self, scope: Scope) -> tuple[Scope, str]:
        """Return a request as the app knows it, and its path inside of the app.

        A proxy may leave its own path before that, or take it away.
        """
        path, root = str(scope["path"]), self.settings.root_path
        if not root:
            return scope, path.rstrip("/") or "/"
        if (path + "/").startswith(root + "/"):
            path = path[len(root) :] or "/"
        return {**scope, "root_path": root, "path": root + path}, path.rstrip("/") or "/"

    def _check_address(self, method: str, path: str, cookies: dict[str, str]) -> None:
        """Refuse what isn't listed, and what only those may see who have logged in."""
        if method in ("GET", "HEAD") and _OPEN.fullmatch(path):
            return
        if method == "POST" and path == _LOGIN:
            return
        if self.settings.user and not self.is_logged_in(cookies.values()):
            raise Refused(401, "Not authenticated: log in first.")
        doors = {"GET": _GET, "HEAD": _GET, "POST": _POST}
        if method not in doors or not doors[method].fullmatch(path):
            raise Refused(404, "There is nothing under this address.")

    async def _upload(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what comes in, and remember what has been stored."""
        from starlette.exceptions import HTTPException

        scope["headers"] = [  # the answer must be legible
            pair for pair in scope["headers"] if pair[0] != b"accept-encoding"
        ]
        answer = _Copy(send)
        with self.uploads.arriving(visitor) as arrival:

            async def counted() -> Message:
                message = await receive()
                if not arrival.take(len(message.get("body", b""))):
                    raise HTTPException(413, _TOO_MUCH)  # Gradio's own kind, from inside
                return message

            await self.app(scope, counted, answer)
            if answer.status == 200:
                arrival.keep(json.loads(bytes(answer.body)))

    async def _login(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a wrong guess make the next one wait longer."""
        answer = _Copy(send)
        body = await _body(receive)
        try:
            async with self.login.attempt(visitor.address) as attempt:
                await self.app(scope, _again(body, receive), answer)
                attempt.succeeded = answer.status == 200
        except TooManyAttempts as error:
            raise Refused(429, str(error)) from error

    def _check_files(self, body: bytes, visitor: Visitor) -> None:
        """Refuse a file that this visitor hasn't sent: Gradio would copy it and hand it out."""
        try:
            pending: list[Any] = [json.loads(body or b"null")]
        except (ValueError, RecursionError) as error:
            raise Refused(400, "The request isn't JSON.") from error
        while pending:
            value = pending.pop()
            if isinstance(value, list):
                pending += value
            elif isinstance(value, dict):
                if "path" in value and not self.uploads.owns(visitor, value["path"]):
                    raise Refused(403, "A file isn't one of your uploads; choose it again.")
                pending += value.values()


class _Copy:
    """A response on its way, of which the status and the beginning are kept."""

    def __init__(self, send: Send) -> None:
        self.status = 0
        self.body = bytearray()
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif len(self.body) < _MOST_BYTES:
            self.body += message.get("body", b"")
        await self._send(message)


def _name(place: str) -> str:
    """Return the name in a place on the network.

    >>> _name("localhost:7860"), _name("[::1]:7860"), _name("Example.org.")
    ('localhost', '::1', 'example.org')
    """
    try:
        return (urlsplit(f"//{place}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _cookies(headers: dict[str, bytes]) -> dict[str, str]:
    try:
        cookies = SimpleCookie(headers.get("cookie", b"").decode("latin-1"))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in cookies.items()}


def _known(scope: Scope, cookies: dict[str, str], send: Send) -> tuple[Visitor, Send]:
    """Recognise a visitor by a cookie, and give one to a browser that has none.

    Programs may well have none; their address stands for it.
    """
    client = scope.get("client")
    visitor = known_visitor(cookies, client[0] if client else "")
    if visitor.token != visitor.address or scope["method"] != "GET":
        return visitor, send
    token = secrets.token_urlsafe(16)
    place = scope.get("root_path", "") or "/"
    cookie = f"{COOKIE}={token}; Path={place}; HttpOnly; SameSite=Lax"

    async def with_cookie(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"set-cookie", cookie.encode())]
        await send(message)

    return visitor._replace(token=token), with_cookie


async def _body(receive: Receive) -> bytes:
    """Read a request that must be short."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "The request ended early.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _MOST_BYTES:
            raise Refused(413, f"The request has more than {_MOST_BYTES / 1e6:.0f} MB.")
    return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body once more, then what comes after it."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


async def _answer(refusal: Refused, scope: Scope, send: Send) -> None:
    from starlette.responses import JSONResponse, PlainTextResponse

    kind = PlainTextResponse if scope["path"].endswith(_UPLOAD) else JSONResponse
    text = str(refusal)
    content = text if kind is PlainTextResponse else {"detail": text}
    await kind(content, refusal.status)(scope, _nothing, send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
