"""Turn what people type into values."""

import math
import re
from collections.abc import Sequence

from separator.errors import ConfigError, nearest


def words(text: str | None) -> tuple[str, ...]:
    """Split a list at its commas.

    >>> words("vocals, drums")
    ('vocals', 'drums')
    """
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def seconds(text: str | None, option: str) -> float | None:
    """Read a time: seconds, `minutes:seconds` or `hours:minutes:seconds`.

    Raises:
        ConfigError: It is none of these, or negative.

    >>> seconds("1:02:03.5", "--start")
    3723.5
    """
    if text is None:
        return None
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?|\.\d+", text.strip()):
        raise ConfigError(
            f"{option} is '{text}'; allowed: seconds (90.5), mm:ss (1:30.5) or hh:mm:ss."
        )
    parts = [float(part) for part in text.strip().split(":")]
    return math.fsum(part * 60**power for power, part in enumerate(reversed(parts)))


def one_of(value: str, allowed: Sequence[str], option: str) -> str:
    """Return the value if it is allowed.

    Raises:
        ConfigError: It isn't; with the nearest one that is.
    """
    if value not in allowed:
        raise ConfigError(
            f"{option} is '{value}'; allowed: {', '.join(allowed)}.{nearest(value, allowed)}"
        )
    return value
