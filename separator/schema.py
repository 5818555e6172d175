"""Strict, frozen schemas for the YAML files that people write: cards and recipes.

A mistake in such a file ends in one line that names the file, the field, and what is allowed;
an unknown key is refused together with the nearest known one. YAML is read by the safe loader
only, so a file can hold data and nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from separator.errors import ConfigError
from separator.words import nearest, one_line

SAFE_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: More than any card, recipe or bag needs; files of strangers are read, too.
_MOST_TEXT, _MOST_VALUES, _MOST_DEPTH = 1_000_000, 100_000, 50

Schema = TypeVar("Schema", bound=BaseModel)

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


#: For fields that are tuples, which nobody can change: YAML has lists only.
FROM_LIST = BeforeValidator(_as_tuple)


class Strict(BaseModel):
    """Base of the schemas: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def read_yaml(path: Path, loader: type[Any] = SAFE_LOADER) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader, or with a safe `loader` that knows more tags.

    Raises:
        ConfigError: The file can't be read, isn't YAML, or isn't a mapping.
    """
    try:
        text = _read_text(path)
        _check_size(text, loader)
        data = yaml.load(text, Loader=loader)
    except OSError as error:
        raise ConfigError(f"Can't read '{path}': {error.strerror}.") from error
    except (yaml.YAMLError, ValueError) as error:  # impossible dates, bytes that are no text
        raise ConfigError(f"'{path}' is not valid YAML: {_yaml_problem(error)}.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"'{path}' holds {type(data).__name__}, expected a mapping of fields.")
    return data


def _read_text(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        text = file.read(_MOST_TEXT + 1)
    if len(text) > _MOST_TEXT:
        raise ValueError(f"it has more than {_MOST_TEXT:,} characters")
    return text


def _check_size(text: str, loader: type[Any]) -> None:
    """Refuse, before anything is built, what would grow: by aliases of aliases, or in depth.

    Raises:
        ValueError: Too many values once aliases are written out, too deep, or an alias of itself.
    """
    sizes: dict[str, int] = {}  # of what has an anchor, written out
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]  # anchor, and values inside so far
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"the alias '*{event.anchor}' stands for nothing before it")
            _grow(open_nodes, sizes[event.anchor])
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 0))
            if len(open_nodes) > _MOST_DEPTH:
                raise ValueError(f"it is more than {_MOST_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = size + 1
            _grow(open_nodes, size + 1)
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None:
                sizes[event.anchor] = 1
            _grow(open_nodes, 1)


def _grow(open_nodes: list[tuple[str | None, int]], size: int) -> None:
    anchor, before = open_nodes[-1]
    open_nodes[-1] = (anchor, before + size)
    if before + size > _MOST_VALUES:
        raise ValueError(f"it holds more than {_MOST_VALUES:,} values, aliases written out")


def _yaml_problem(error: yaml.YAMLError | ValueError) -> str:
    """Say what is wrong and where, without the parser's own names for it."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return one_line(error)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Raises:
        ConfigError: One line that names the file.
    """
    try:
        data = json.loads(_read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"Can't read '{path}' as JSON ({error}).") from error
    if not isinstance(data, dict):
        raise ConfigError(f"'{path}' holds {type(data).__name__}, expected a mapping.")
    return data


def validate(model: type[Schema], data: dict[str, Any], where: str) -> Schema:
    """Check `data` against `model`; `where` names the file in the error.

    Raises:
        ConfigError: One line about the first problem, and the number of the others.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # a key that is missing may only be misspelt
        first, *others = sorted(errors, key=lambda each: each["type"] == "missing")
        more = f" ({len(others)} more like it)" if others else ""
        raise ConfigError(f"{where}: {_describe(model, first)}{more}") from None


def _describe(model: type[BaseModel], error: ErrorDetails) -> str:
    location = error["loc"]
    field = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        known = list(_owner(model, location).model_fields)
        close = nearest(str(location[-1]), known) or f" Known: {', '.join(known)}."
        return f"unknown key '{field}'.{close}"
    if error["type"] == "missing":
        return f"'{field}' is missing."
    if error["type"] == "value_error":  # our own validators say what was given
        message = error["msg"].removeprefix("Value error, ")
        return f"'{field}': {message}." if field else f"{message}."
    if error["type"] in ("model_type", "dict_type"):
        keys = ", ".join(_owner(model, (*location, "")).model_fields)
        those = f" with keys among {keys}" if error["type"] == "model_type" else ""
        return f"'{field}': input should be a mapping{those}, got {error['input']!r:.80}."
    message = (error["msg"][0].lower() + error["msg"][1:]).replace("tuple", "list")
    return f"'{field}': {message}, got {error['input']!r:.80}."


def _owner(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """Follow a location to the schema that holds its last key."""
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        nested = _nested(field.annotation) if field else None
        model = nested or model
    return model


def _nested(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _nested(part))), None)
