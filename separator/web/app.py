"""Put the pages together and serve them."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from separator.errors import ConfigError
from separator.web.settings import AppSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from separator.web.service import Service


# Gradio's own words, where ours are plainer.
_WORDS = {
    "upload_text.drop_file": "Drop here",
    "upload_text.or": "or",
    "upload_text.click_to_upload": "click to choose",
}


def build_app(service: Service) -> FastAPI:
    """Build the web application: our own addresses, and Gradio's pages for the rest."""
    _be_private(service)
    import gradio as gr
    from fastapi import FastAPI

    from separator.web.gate import Gate
    from separator.web.pages.layout import build_pages
    from separator.web.routes import STATIC, add_routes
    from separator.web.theme import make_theme
    from separator.web.view import ASSETS

    settings = service.settings
    pages = build_pages(service)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    tokens: dict[str, str] = {}
    app.add_middleware(
        Gate,
        settings=settings,
        uploads=service.uploads,
        is_logged_in=lambda cookies: any(cookie in tokens for cookie in cookies),
    )
    add_routes(app, service)
    gr.mount_gradio_app(
        app,
        pages,
        path="/",
        server_name=settings.host,
        server_port=settings.port,
        auth=(settings.user, settings.password) if settings.user and settings.password else None,
        max_file_size=settings.max_bytes,
        theme=make_theme(),
        head=ASSETS,
        i18n=gr.I18n(en=_WORDS),
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        show_error=False,
        favicon_path=STATIC / "icon.svg",
        root_path=settings.root_path or None,
    )
    inner = app.routes[-1].app  # type: ignore[attr-defined]
    inner.tokens = tokens  # of those who have logged in
    pages.has_launched = pages.is_running = True  # else Gradio's own checks of files do nothing
    return app


def _be_private(service: Service) -> None:
    """Tell Gradio, before it is imported, to report nothing and to keep uploads with our files."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(service.uploads.folder)


class Server:
    """The running app, in a thread of its own.

    Raises:
        ConfigError: The address can't be listened on.
    """

    def __init__(self, settings: AppSettings | None = None) -> None:
        import uvicorn

        from separator.web.service import Service

        self._socket = _listen(settings or AppSettings())
        self.service = Service(settings or AppSettings())
        self.app = build_app(self.service)
        self._server = uvicorn.Server(
            uvicorn.Config(self.app, log_level="warning", timeout_graceful_shutdown=2)
        )
        self._thread = threading.Thread(target=self._run, name="separator-web", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the app is found."""
        host, port = self._socket.getsockname()[:2]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"

    def wait(self) -> None:
        """Wait until the server ends."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def close(self) -> None:
        """Stop serving, cancel all jobs, delete all files."""
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self.service.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _listen(settings: AppSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen()  # whoever reads the address may connect at once
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"Can't listen on {settings.host}:{settings.port}: {error.strerror or error}. "
            "Choose another --port."
        ) from error
    return listener
