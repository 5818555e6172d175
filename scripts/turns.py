"""Processes that take turns: what disturbs one in a benchmark disturbs the others as well."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass
class Worker:
    """A process that does a piece of work for each line it reads, and writes a line about it."""

    process: subprocess.Popen[str]

    @classmethod
    def start(
        cls, python: str, script: str, arguments: Sequence[object], **environment: str
    ) -> Worker:
        """Start a script, which finds this program, its tests and its scripts."""
        paths = os.pathsep.join(str(ROOT / folder) for folder in (".", "tests", "scripts"))
        process = subprocess.Popen(
            [python, script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": paths} | environment,
        )
        return cls(process)

    def ask(self) -> str | None:
        """Let it work once; return its line, or None if it has ended."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        return self.process.stdout.readline() or None

    def end(self) -> str:
        """End the process; return the last line of its errors."""
        _, errors = self.process.communicate()
        return (errors.strip().splitlines() or [""])[-1]
