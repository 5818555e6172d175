"""Cards written as YAML files that people like to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from separator.files import write_text
from separator.zoo.cards import AnyCard


class _Inline(dict[str, Any]):
    """A mapping that is written on one line."""


class _InlineList(list[Any]):
    """A list that is written on one line."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Inline,
    lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True),
)
_Dumper.add_representer(
    _InlineList,
    lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True),
)
#: Fields in the order that people read them in; all others stand in between.
_FIRST = ("name", "description", "network", "parameters", "stems", "residual", "sample_rate")
_LAST = ("weights", "licence", "note", "training_data", "source", "scores")


def write_card(card: AnyCard, folder: Path) -> Path:
    """Write a card into `folder` as `<name>.yaml`, without the fields left at their defaults.

    The file appears whole or not at all: others may be reading the folder meanwhile.
    """
    data = card.model_dump(mode="json", exclude_defaults=True)
    between = (key for key in data if key not in _LAST)
    data = {key: data[key] for key in (*_FIRST, *between, *_LAST) if key in data}
    data["stems"] = _InlineList(data["stems"])
    if "parameters" in data:
        data["parameters"] = _Inline(data["parameters"])
    for member in data.get("members", ()):
        for key in ("stems", "weights"):
            if key in member:
                member[key] = _Inline(member[key])
    for score in data.get("scores", ()):
        score["values"] = _Inline(score["values"])
    path = folder / f"{card.name}.yaml"
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    write_text(path, text)
    return path
