"""A shell in which `workerctl` is the one under test: for what the documentation shows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from tests import command
from tests.fork_client import SERVER

FORKED = Path(__file__).parent / "forked"  # the `workerctl` that the fork server runs
PATIENCE = 60.0  # seconds that a block may take


@dataclass
class Shell:
    """bash in the directory of a project, with the settings of one test."""

    directory: Path
    environment: dict[str, str]

    def __call__(self, text: str, **environment: str) -> str:
        """What the commands print. The first that fails ends it, and the test."""
        with self._bash(text, environment, stderr=subprocess.PIPE) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE)
            except BaseException:
                process.kill()
                raise
        assert process.returncode == 0, f"{text}\n{out}{err}"
        return out

    def stop(self) -> None:
        """Stop the daemons that were started here."""
        for each in Path(self.environment["RUNTIME_DIR"]).glob("*.sock"):
            self(f"workerctl stop --now --name {each.stem}")

    def endless(self, words: str, sign: str) -> None:
        """Run a command that goes on until it is interrupted, until it has printed this; it ends then as it should."""
        with self._bash(f"exec {words}", {}, stderr=subprocess.STDOUT) as process:
            limit = Timer(PATIENCE, process.kill)
            limit.start()
            assert process.stdout is not None
            seen = any(sign in line for line in process.stdout)
            process.send_signal(signal.SIGINT)
            process.stdout.read()
        limit.cancel()
        assert seen, f"{words} did not print {sign}"
        assert process.returncode in (0, 130), words

    def _bash(self, text: str, environment: dict[str, str], stderr: int) -> subprocess.Popen[str]:
        path = f"{FORKED}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        server = command.server().fileno()
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.directory,
            env={**os.environ, **self.environment, **environment, "PATH": path, SERVER: str(server)},
            pass_fds=[server],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
