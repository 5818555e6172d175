"""Words and numbers as people read and type them: hints, lists, sizes, times."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from difflib import get_close_matches

from separator.errors import ConfigError

#: The mixture's name beside those of its stems.
MIXTURE = "mixture"


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


def clock(seconds: float) -> str:
    """Write a time as a clock does.

    >>> clock(43.2), clock(3725)
    ('0:43', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the nearest known word, or nothing.

    >>> nearest("vocal", ["drums", "vocals"])
    " Did you mean 'vocals'?"
    >>> nearest("kazoo", ["drums", "vocals"])
    ''
    """
    close = get_close_matches(word, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def megabytes(size: int | None) -> str:
    """Write a number of bytes for people.

    >>> megabytes(639_331_213)
    '639.3 MB'
    """
    if size is None:
        return "of unknown size"
    return f"{size / 1e6:.1f} MB"


def one_line(message: object) -> str:
    """Take line breaks out of a message, or an error's: names of files may hold them.

    >>> one_line(ValueError("no file 'a\\nb'"))
    "no file 'a b'"
    """
    return " ".join(str(message).splitlines())


def words(text: str | None) -> tuple[str, ...]:
    """Split a list at its commas.

    >>> words("vocals, drums")
    ('vocals', 'drums')
    """
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def listed(names: Iterable[str]) -> str:
    """Write alternatives as a sentence has them.

    >>> listed(["wav", "flac", "mp3"])
    'wav, flac or mp3'
    """
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def rounded(number: float) -> str:
    """Write a number with a prefix and three digits.

    >>> rounded(93_400_000)
    '93.4 M'
    """
    power = min(int(math.log10(number) // 3), 4) if number >= 1 else 0
    return f"{number / 1000**power:.3g} {('', 'k', 'M', 'G', 'T')[power]}".strip()
