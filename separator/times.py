"""Read times as people write them."""

import math
import re

from separator.errors import ConfigError


def seconds_of(text: str | None, name: str) -> float | None:
    """Read a time: seconds, `minutes:seconds` or `hours:minutes:seconds`; None stays None.

    Args:
        name: What the time is called where it was typed.

    Raises:
        ConfigError: It is none of these, or negative.

    >>> seconds_of("1:02:03.5", "--start"), seconds_of(" 12.5", "From")
    (3723.5, 12.5)
    """
    if text is None:
        return None
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?|\.\d+", text.strip()):
        raise ConfigError(
            f"{name} is '{text}'; allowed: seconds (90.5), mm:ss (1:30.5) or hh:mm:ss."
        )
    parts = [float(part) for part in text.strip().split(":")]
    return math.fsum(part * 60**power for power, part in enumerate(reversed(parts)))
