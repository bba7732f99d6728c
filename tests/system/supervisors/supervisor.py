"""A real supervisord in a test's folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import until

if TYPE_CHECKING:
    from tests.support import Ctl

PROGRAMS = Path(sys.executable).parent
CONFIGURATION = """\
[supervisord]
nodaemon=true
logfile=%(here)s/supervisord.log
pidfile=%(here)s/supervisord.pid
childlogdir=%(here)s
[unix_http_server]
file=%(here)s/supervisor.sock
[supervisorctl]
serverurl=unix://%(here)s/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[include]
files={files}/*.conf
"""


class Supervisord:
    """One that reads what `workerctl install supervisor` has written into `files`; `ctl` runs where its configuration is found."""

    def __init__(self, ctl: Ctl, files: Path) -> None:
        self._home = ctl.directory
        self._process: subprocess.Popen[bytes] | None = None
        (self._home / "supervisord.conf").write_text(CONFIGURATION.format(files=files))

    async def start(self) -> None:
        """Start it, as the host does, and return when it answers."""
        self._process = subprocess.Popen(
            [PROGRAMS / "supervisord"], cwd=self._home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        await until((lambda: self._answers()), "supervisord answers")

    async def _answers(self) -> bool:
        return self.order("pid").returncode == 0

    def order(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What supervisorctl says."""
        return subprocess.run(
            [PROGRAMS / "supervisorctl", *words], cwd=self._home, capture_output=True, text=True, check=False
        )

    async def until_state(self, state: str) -> None:
        async def look() -> bool:
            return f" {state} " in f"{self.order('status', 'worker').stdout} "

        await until(look, f"supervisor says {state}")

    def stop(self) -> None:
        """End it, as the host does: it stops what it has started."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None
