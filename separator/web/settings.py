"""What whoever starts the web app can choose."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from separator.errors import ConfigError

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|[0-9a-f:]+")
_ROOT = re.compile(r"(/[\w.~-]+)*")
_POSITIVE = (
    "max_bytes",
    "max_seconds",
    "max_waiting",
    "keep_seconds",
    "max_jobs",
    "max_uploads",
    "max_held",
    "patience_seconds",
)


@dataclass(frozen=True)
class AppSettings:
    """Place where the app listens, what it takes and how long it keeps it.

    Attributes:
        host: Address to listen on; anything but a loopback address opens it to the network.
        port: TCP port; 0 lets the system choose a free one.
        user: Name to log in with; needs a password too.
        password: Password of the user.
        device: Where models run; see `separator.stream.runner.pick_device`.
        max_bytes: Size of an upload.
        max_seconds: Length of what is separated at once.
        max_waiting: Songs that wait in the queue, of all users together.
        keep_seconds: How long results stay after they were last used.
        max_jobs: Songs of one visitor that wait or run, where strangers come too.
        max_uploads: Files of one visitor that no job has used.
        max_held: Bytes of all files of one visitor.
        patience_seconds: How long a job goes on while no page asks for it.
        allowed_hosts: Names under which a proxy shows the app.
        root_path: Where below that name it is, such as "/separator"; empty for the top.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    user: str | None = None
    password: str | None = None
    device: str = "auto"
    max_bytes: int = 1_000_000_000
    max_seconds: float = 3600.0
    max_waiting: int = 64
    keep_seconds: float = 3600.0
    max_jobs: int = 32
    max_uploads: int = 1000
    max_held: int = 20_000_000_000
    patience_seconds: float = 60.0
    allowed_hosts: tuple[str, ...] = ()
    root_path: str = ""

    def __post_init__(self) -> None:
        if bool(self.user) != bool(self.password):
            raise ConfigError("A user needs a password, and a password a user; give both.")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"The port is {self.port}; allowed: 0 to 65535.")
        for host in self.allowed_hosts:
            if not _HOST.fullmatch(host):
                raise ConfigError(
                    f"'{host}' isn't the name of a host; allowed: one like music.example.org, "
                    "without https:// and port."
                )
        if not _ROOT.fullmatch(self.root_path):
            raise ConfigError(
                f"The root path is '{self.root_path}'; allowed: one like /separator, without a "
                "slash at its end."
            )
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; allowed: more than 0.")

    @property
    def is_local(self) -> bool:
        """Whether only this computer can reach the app.

        >>> AppSettings().is_local, AppSettings(host="0.0.0.0").is_local
        (True, False)
        """
        return _is_loopback(self.host)

    def is_called(self, name: str) -> bool:
        """Whether a browser may know the app by this name.

        A page that has made its own name point to this computer must not pass for the app's; where
        the app is open to a network, nobody can tell all its names, unless they are given.

        >>> AppSettings().is_called("localhost"), AppSettings().is_called("evil.example")
        (True, False)
        >>> AppSettings(host="0.0.0.0").is_called("studio.lan")
        True
        """
        if not self.is_local and not self.allowed_hosts:
            return True
        return _is_loopback(name) or name in self.allowed_hosts

    @property
    def may_manage(self) -> bool:
        """Whether users may download, add and delete models: not strangers."""
        return self.is_local or self.user is not None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
