"""What whoever starts the web app can choose."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from separator.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Say where the app listens, what it takes and how long it keeps it.

    Attributes:
        host: Address to listen on; anything but a loopback address opens it to the network.
        port: TCP port; 0 lets the system choose a free one.
        user: Name to log in with; needs a password too.
        password: Of the user.
        device: Where models run; see `separator.stream.runner.pick_device`.
        max_bytes: Size of an upload.
        max_seconds: Length of what is separated at once.
        max_waiting: Songs that wait in the queue, of all users together.
        keep_seconds: How long results stay after they were last used.
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

    def __post_init__(self) -> None:
        if bool(self.user) != bool(self.password):
            raise ConfigError("A user needs a password, and a password a user; give both.")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"The port is {self.port}; allowed: 0 to 65535.")
        for name in ("max_bytes", "max_seconds", "max_waiting", "keep_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; allowed: more than 0.")

    @property
    def is_local(self) -> bool:
        """Whether only this computer can reach the app.

        >>> Settings().is_local, Settings(host="0.0.0.0").is_local
        (True, False)
        """
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def may_manage(self) -> bool:
        """Whether users may download, add and delete models: not strangers."""
        return self.is_local or self.user is not None
