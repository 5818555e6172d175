"""Run the command line with `python -m separator`."""

from __future__ import annotations

from separator.cli import main

if __name__ == "__main__":
    main()
