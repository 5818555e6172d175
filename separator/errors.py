"""The errors that a user can cause and mend.

A message says what went wrong, what was given, what is allowed and what to do next, in one line.
Anything that is not a `SeparatorError` is a defect of this program.
"""


class SeparatorError(Exception):
    """Base of every error that this package raises on purpose."""


class AudioError(SeparatorError):
    """Raise when a file can't be decoded, encoded or written."""


class ModelError(SeparatorError):
    """Raise when a model can't be found, verified, loaded or run."""


class ConfigError(SeparatorError):
    """Raise when an option, a card or a recipe holds a value that isn't allowed."""


class Cancelled(SeparatorError):
    """Raise when the caller asked for the work to stop."""
