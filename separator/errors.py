"""The errors that a user can cause and mend.

A message says what went wrong, what was given, what is allowed and what to do next, in one line.
Anything that is not a `SeparatorError` is a defect of this program.
"""

from __future__ import annotations


class SeparatorError(Exception):
    """Base of every error that this package raises on purpose."""


class AudioError(SeparatorError):
    """Audio that can't be decoded, encoded or written."""


class ModelError(SeparatorError):
    """Model that can't be found, verified, loaded or run."""


class ConfigError(SeparatorError):
    """Value of an option, a card or a recipe that isn't allowed."""


class Cancelled(SeparatorError):
    """Wish of the caller that the work stops."""
