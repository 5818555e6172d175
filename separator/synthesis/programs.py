"""Run the programs that play and speak."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


def run_program(command: Sequence[str], seconds: float, folder: Path | None = None) -> None:
    """Run a program, in `folder`, in a session of its own: Ctrl-C is for who waits for it.

    Raises:
        OSError, subprocess.SubprocessError: It is missing, failed, or took longer than `seconds`.
    """
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        timeout=seconds,
        cwd=folder,
        start_new_session=True,
    )
