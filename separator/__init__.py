"""Separate a recorded song into stems."""

__version__ = "0.1.0"
