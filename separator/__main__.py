"""Run the command line with `python -m separator`."""

from separator.cli import main

if __name__ == "__main__":
    main()
