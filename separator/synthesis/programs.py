"""Run the programs that play and speak."""

import subprocess
from collections.abc import Sequence


def run(command: Sequence[str], seconds: float) -> None:
    """Run a program in a session of its own: Ctrl-C is for the process that waits for it.

    Raises:
        OSError, subprocess.SubprocessError: It is missing, failed, or took longer than `seconds`.
    """
    subprocess.run(
        command, check=True, capture_output=True, timeout=seconds, start_new_session=True
    )
