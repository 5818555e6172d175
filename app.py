"""Start the web app; `python app.py --help` lists its options."""

import sys

from separator.cli import app

app(["app", *sys.argv[1:]])
