"""Separate a recorded song into stems."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from separator.api import Separator, load_model
    from separator.zoo.search import list_cards as list_models

__version__ = "0.1.0"
__all__ = ["Separator", "__version__", "list_models", "load_model"]

_PLACES = {
    "Separator": ("separator.api", "Separator"),
    "load_model": ("separator.api", "load_model"),
    "list_models": ("separator.zoo.search", "list_cards"),
}


def __getattr__(name: str) -> object:
    """Import what is used, when it is used: torch takes its time."""
    if name not in _PLACES:
        raise AttributeError(f"module 'separator' has no attribute '{name}'")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)
