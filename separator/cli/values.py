"""Turn what people type into values."""

from collections.abc import Sequence

from separator.errors import ConfigError, nearest


def words(text: str | None) -> tuple[str, ...]:
    """Split a list at its commas.

    >>> words("vocals, drums")
    ('vocals', 'drums')
    """
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


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
