"""A PostgreSQL that the soak test has for itself, and stops and starts."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from workerd import embedded
from workerd.embedded.place import locate
from workerd.embedded.server import server_pid, wait_until_gone

if TYPE_CHECKING:
    from types import TracebackType

Mode = Literal["fast", "immediate"]
SIGNALS: dict[Mode, signal.Signals] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class Server:
    """Runs within the block; `dsn` is its address."""

    def __enter__(self) -> Server:
        self._state = Path(tempfile.mkdtemp(prefix="workerd-soak-"))
        self._state.chmod(0o755)
        self._place = locate(self._state)
        self.dsn = embedded.start(self._state)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop("immediate")
        shutil.rmtree(self._state)

    def restart(self, mode: Mode) -> None:
        """As `pg_ctl restart -m MODE` does; returns when it answers again."""
        self._stop(mode)
        embedded.start(self._state)

    def _stop(self, mode: Mode) -> None:
        pid = server_pid(self._place)
        if pid is not None:
            os.kill(pid, SIGNALS[mode])
            wait_until_gone(self._place, pid)
