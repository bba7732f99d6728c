"""A machine with a real systemd, booted by the testbed, and the daemon in it as a user installs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.support import ROOT

if TYPE_CHECKING:
    from types import TracebackType

TESTBED = Path(os.environ.get("TESTBED", ROOT.parent / "shared" / "testbed"))
PYTHON = "/opt/worker/bin/python"
LIMIT = 300.0  # seconds that a command inside may take


class Machine:
    """Booted by `with`, powered off and removed at its end. The network is the host's; `tests` lies in /opt/app."""

    def __init__(self, environment: Path) -> None:
        self._script = str(TESTBED / "real-systemd.sh")
        self._name = f"tests-{uuid4().hex[:8]}"
        self._binds = (f"{environment}:/opt/worker", f"{ROOT / 'tests'}:/opt/app/tests")

    def __enter__(self) -> Machine:
        binds = [word for bind in self._binds for word in ("--bind-ro", bind)]
        # what it leaves running must not hold a pipe of ours open
        with Path(f"/tmp/{self._name}.up").open("w+") as said:
            done = subprocess.run(
                [self._script, "up", self._name, *binds], stdout=said, stderr=said, check=False, timeout=LIMIT
            )
            said.seek(0)
            words = said.read()
        Path(said.name).unlink()
        if done.returncode:
            self.__exit__(None, None, None)
            pytest.skip(f"no systemd can be booted here: {words.strip().splitlines()[-1:]}")
        self.root = Path(subprocess.check_output([self._script, "root", self._name], text=True).strip())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run([self._script, "down", self._name], check=True, capture_output=True, timeout=LIMIT)

    def command(self, *words: str) -> list[str]:
        """The command line that runs something inside, as root."""
        return [self._script, "exec", self._name, *words]

    def try_run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), capture_output=True, text=True, check=False, timeout=LIMIT)

    def run(self, *words: str) -> str:
        """The output of a command that has to succeed."""
        done = self.try_run(*words)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr or done.stdout}"
        return done.stdout

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`workerctl`, as root."""
        return self.try_run(PYTHON, "-m", "workerctl", *words)

    def show(self, unit: str, what: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--property", what, "--value", unit).strip()

    def journal(self, unit: str) -> str:
        """All that `journalctl -u` has of a unit."""
        return self.run("journalctl", "--no-pager", "--output", "cat", "--unit", unit)

    def write(self, path: str, text: str) -> None:
        """A file inside."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
