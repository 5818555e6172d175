"""Add models that were uploaded: files that belong together arrive one by one, without a folder."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from separator.checkpoints.msst import TupleLoader
from separator.errors import ConfigError, ModelError
from separator.schema import read_yaml
from separator.web.songs import adopt
from separator.zoo.adding import add_path
from separator.zoo.cards import AnyCard

_FOLDER = re.compile(r"'(?:/|[A-Za-z]:\\)[^']*[/\\]([^'/\\]+)'")


def add_files(files: Sequence[Path], *, stems: Sequence[str] = (), name: str = "") -> AnyCard:
    """Add a model in any format that `separator models add` knows, safely: weights are data.

    Args:
        files: a checkpoint, with its YAML or JSON, or without; the YAML of a bag of Demucs files,
            and these; or all files of a folder of Open-Unmix.
        stems: names of a checkpoint's estimates, where nothing else names them.
        name: name of the model; made from a file's name unless given.

    Raises:
        ModelError: A file can't be read, is hostile, or doesn't fit.
        ConfigError: Settings lack something, files don't belong together, or the name is taken.
    """
    with tempfile.TemporaryDirectory(prefix="separator-add-") as temporary:
        folder = Path(temporary) / "open-unmix"  # its name is the model's, if nothing else is
        folder.mkdir()
        for file in files:
            if (folder / file.name).exists():
                raise ConfigError(f"Two files are called '{file.name}'; choose each once.")
            adopt(file, folder, file.stem)
        try:
            path, config = _sort(folder)
            return add_path(path, config, stems=stems, name=name or None, copy=True)
        except (ModelError, ConfigError) as error:
            raise type(error)(without_folders(str(error))) from error


def _sort(folder: Path) -> tuple[Path, Path | None]:
    """Find out what is to be added, and the YAML or JSON that belongs to it."""
    if (folder / "separator.json").exists():
        return folder, None
    files = sorted(folder.iterdir())
    sheets = [file for file in files if file.suffix in (".yaml", ".yml", ".json")]
    weights = [file for file in files if file not in sheets]
    if len(sheets) > 1:
        raise ConfigError(f"These are {len(sheets)} files of settings; a model has one at most.")
    if sheets and "models" in read_yaml(sheets[0], TupleLoader):
        return sheets[0], None
    if len(weights) != 1:
        raise ConfigError(
            f"These are {len(weights)} files of weights; a model has one. Only a bag of Demucs "
            "files has more, with the YAML that names them, or Open-Unmix, with separator.json."
        )
    return weights[0], sheets[0] if sheets else None


def without_folders(message: str) -> str:
    """Leave out where the server keeps a file; the user knows its name.

    >>> without_folders("'/tmp/x/a.ckpt' is damaged.")
    "'a.ckpt' is damaged."
    """
    return _FOLDER.sub(r"'\1'", message)
