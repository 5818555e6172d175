"""What is wanted of a song, as command, Python, batch and page pass it on: one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from separator.audio.formats import output_format
from separator.audio.naming import DEFAULT_TEMPLATE, check_template, stem_path
from separator.errors import ConfigError


class WantedValues(TypedDict, total=False):
    """Values of `Wanted` by their names."""

    stems: Sequence[str] | None
    residual: str | None
    start: float
    duration: float | None
    track: int | None
    audio_format: str
    bit_depth: int | None
    template: str
    overwrite: bool


@dataclass(frozen=True)
class Wanted:
    """Parts of a song to separate, and the form of the files.

    Attributes:
        stems: Names of the stems; all that the model knows unless given.
        residual: Name under which the mixture minus these stems is written too.
        start: Where to begin, in seconds.
        duration: How much to separate, in seconds; to the end unless given.
        track: Number of the audio track of a film, from 0; the first that can be decoded unless
            given.
        audio_format: wav, flac, mp3, ogg, opus or m4a.
        bit_depth: 16, 24 or 32 (float), where the format has them; the source's unless given.
        template: Names of the files, see `separator.audio.naming`.
        overwrite: Whether files that exist are replaced.

    Raises:
        ConfigError: A value that isn't allowed.
    """

    stems: Sequence[str] | None = None
    residual: str | None = None
    start: float = 0.0
    duration: float | None = None
    track: int | None = None
    audio_format: str = "wav"
    bit_depth: int | None = None
    template: str = DEFAULT_TEMPLATE
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_template(self.template)
        depths = output_format(self.audio_format).codecs
        if self.bit_depth is not None and self.bit_depth not in depths:
            allowed = ", ".join(str(depth) for depth in depths if depth) or "none, it is lossy"
            raise ConfigError(
                f"The bit depth is {self.bit_depth}; {self.audio_format} allows: {allowed}."
            )
        if self.duration is not None and not self.duration > 0:
            raise ConfigError(f"The duration is {self.duration:g} s; allowed: more than 0 seconds.")

    def path(self, track: str, stem: str, model: str) -> Path:
        """Return the place of a stem's file below the folder for results."""
        extension = output_format(self.audio_format).name
        return stem_path(self.template, track=track, stem=stem, ext=extension, model=model)
