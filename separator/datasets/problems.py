"""What is wrong with the songs of a data set, in a form that can be counted and shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal

from separator.errors import ConfigError

#: The headings of a table of problems, in the order of `Problem.row`.
PROBLEM_COLUMNS = ("track", "problem", "expected", "what to do", "severity")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one song.

    Attributes:
        track: Name of the song.
        what: What was found.
        expected: What should have been there.
        advice: What the user can do.
        severity: A song with an "error" can't be used; a "warning" only tells.
    """

    track: str
    what: str
    expected: str
    advice: str
    severity: Literal["error", "warning"] = "error"

    def row(self) -> tuple[str, ...]:
        """Return the fields in the order of `PROBLEM_COLUMNS`."""
        return astuple(self)

    @property
    def text(self) -> str:
        """All of it but the song and the severity, on one line."""
        return f"{self.what}; expected: {self.expected}. {self.advice}"

    def __str__(self) -> str:
        return f"'{self.track}': {self.text}"


def unreadable(track: str, error: str) -> Problem:
    """Return the problem of a song of which a file can't be decoded, for what `error` says."""
    advice = "Fetch the song again, or leave it out."
    return Problem(track, error.rstrip("."), "a whole audio file", advice)


class DatasetError(ConfigError):
    """Songs of a data set that can't be used, where that wasn't allowed.

    Attributes:
        problems: Everything that is wrong, to be shown as a table.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()):
        super().__init__(message)
        self.problems = tuple(problems)
