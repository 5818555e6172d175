"""Name the files of stems: a template, and what may stand in it."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

from separator.errors import ConfigError
from separator.words import nearest

DEFAULT_TEMPLATE = "{track}/{stem}.{ext}"
FIELDS = ("track", "stem", "ext", "model")

# Not allowed in a file's name on one of the usual systems, or a separator of folders.
_FORBIDDEN = re.compile(r'[<>:"|?*\\/\x00-\x1f]')


def check_template(template: str) -> None:
    """Check a template of file names.

    Raises:
        ConfigError: No `{stem}`, so that stems would overwrite each other, no `.{ext}` at the end,
            an unknown field, or a path that leaves the output folder.
    """
    try:
        parts = [(part[1], part[2] or part[3]) for part in Formatter().parse(template)]
    except ValueError as error:
        raise ConfigError(f"Template '{template}' can't be read: {error}.") from error
    if any(form for _, form in parts):
        raise ConfigError(f"Template '{template}' formats a field; allowed is its name alone.")
    fields = [field for field, _ in parts if field is not None]
    for field in fields:
        if field not in FIELDS:
            allowed = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise ConfigError(
                f"Template '{template}' has an unknown field '{{{field}}}'; allowed: {allowed}."
                f"{nearest(field, FIELDS)}"
            )
    if "stem" not in fields:
        raise ConfigError(f"Template '{template}' needs {{stem}}: every stem is a file of its own.")
    if not template.endswith(".{ext}"):
        raise ConfigError(f"Template '{template}' must end in .{{ext}}, which the format decides.")
    path = Path(template)
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"Template '{template}' must stay inside the output folder.")


def stem_path(template: str, *, track: str, stem: str, ext: str, model: str) -> Path:
    """Fill in a checked template; return a path relative to the output folder.

    `track` may hold folders; in the other fields a slash becomes an underscore.

    >>> stem_path("{track}/{stem}.{ext}", track="live/song", stem="vocals", ext="wav", model="m")
    PosixPath('live/song/vocals.wav')
    """
    safe = {"stem": stem, "ext": ext, "model": model}
    filled = {name: _FORBIDDEN.sub("_", value) for name, value in safe.items()}
    return Path(template.format(track=track, **filled))
