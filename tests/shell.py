"""A shell in which `workerctl` is the one under test: for what the documentation shows."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 60.0  # seconds that a block may take


@dataclass
class Shell:
    """bash in the directory of a project, with the settings of one test."""

    directory: Path
    environment: dict[str, str]

    def __call__(self, text: str, **environment: str) -> str:
        """What the commands print. The first that fails ends it, and the test."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.directory,
            env={**os.environ, **self.environment, **environment, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def endless(self, command: str) -> None:
        """Run a command that goes on until it is interrupted, for a second; it ends then as it should."""
        self(f"timeout --preserve-status --signal INT 1.5 {command} || [ $? = 130 ]")
