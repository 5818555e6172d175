"""`separator app`: the web app."""

from __future__ import annotations

import os
import signal
from typing import Annotated, Any

import typer

from separator.cli import common
from separator.cli.console import line, message
from separator.errors import ConfigError


def web_app(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 opens the app to your network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 7860,
    user: Annotated[
        str | None,
        typer.Option(help="Ask for this name, and for the password in $SEPARATOR_PASSWORD."),
    ] = None,
    device: common.Device = "auto",
    max_minutes: Annotated[float, typer.Option(help="Longest song that is taken.")] = 60,
    max_megabytes: Annotated[float, typer.Option(help="Largest file that is taken.")] = 1000,
    keep_minutes: Annotated[
        float, typer.Option(help="How long results stay after they were last used.")
    ] = 60,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Name under which a proxy shows the app; may be repeated."),
    ] = None,
    root_path: Annotated[
        str, typer.Option(help="Where below that name the app is, such as /separator.")
    ] = "",
    browser: Annotated[
        bool, typer.Option("--browser", help="Open the page in your browser.")
    ] = False,
) -> None:
    """Start the web app: drop a song, play with its stems."""
    password = os.environ.get("SEPARATOR_PASSWORD")
    if user and not password:
        raise ConfigError(f"The user '{user}' needs a password: put it into $SEPARATOR_PASSWORD.")
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "The web app needs Gradio, which isn't here: pip install 'separator[app]'"
        ) from error
    from separator.web.app import Server
    from separator.web.settings import AppSettings

    settings = AppSettings(
        host=host,
        port=port,
        user=user,
        password=password if user else None,
        device=device,
        max_bytes=round(max_megabytes * 1e6),
        max_seconds=max_minutes * 60,
        keep_seconds=keep_minutes * 60,
        allowed_hosts=tuple(name.lower() for name in allowed_host or ()),
        root_path=root_path,
    )
    _listen_to(signal.default_int_handler)  # uploads are deleted then, too
    with Server(settings) as server:
        line(server.url)
        if not settings.may_manage:
            message("Everyone who reaches this address can use it; --user asks for a password.")
        if browser:
            typer.launch(server.url)
        try:
            server.wait()
        finally:
            _listen_to(signal.SIG_IGN)  # nothing keeps them from being deleted


def _listen_to(handler: Any) -> None:
    """Let a handler hear that the program shall end, or that its terminal is gone."""
    for name in ("SIGTERM", "SIGHUP"):  # the latter isn't known everywhere
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)
