"""A daemon of the benchmark: `python -m workerd` as a process beside us."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerctl import control
from workerd import config
from workerd.errors import WorkerdError
from workerd.settings import Settings

if TYPE_CHECKING:
    from types import TracebackType

    from workerctl.bench.site import Site

START_LIMIT = 60.0  # seconds
STOP_LIMIT = 20.0  # seconds
WORKERS = 100


class Daemon:
    """Starts when it is made, `wait_ready` returns when it claims; stopped at the end of the `with` block."""

    def __init__(self, site: Site, name: str = "bench") -> None:
        self._folder = site.folder
        self._name = name
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify = site.folder / f"{name}.notify"
        notify.unlink(missing_ok=True)
        self._listener.bind(str(notify))
        flags = {
            "name": name, "workers": WORKERS, "tasks": "workerctl.bench.tasks", "state-dir": site.folder,
            "runtime-dir": site.folder, "log-dir": site.folder,
        }  # fmt: skip
        # The address is no flag, for it may hold a password. A session of its own: Ctrl-C is ours to handle.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workerd", *(f"--{flag}={value}" for flag, value in flags.items())],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            cwd=site.folder, env={**_environment(), "DATABASE_URL": site.dsn, "NOTIFY_SOCKET": str(notify)},
        )  # fmt: skip
        self._ended = os.pidfd_open(self._process.pid)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it drain; kill it when it does not go."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._ended)
        self._listener.close()

    def wait_ready(self) -> float:
        """Block until it says that it is ready; returns when (monotonic seconds). Raises WorkerdError when it ends instead."""
        events: tuple[Any, ...] = (self._listener, self._ended)
        limit = time.monotonic() + START_LIMIT
        while (left := limit - time.monotonic()) > 0:
            heard, _, _ = select.select(events, [], [], left)
            if self._listener in heard and b"READY=1" in self._listener.recv(65536).split(b"\n"):
                return time.monotonic()
            if self._ended in heard:
                break
        raise WorkerdError(f"the daemon did not start: {self._last_words()}")

    def done(self) -> int:
        """Jobs that it has finished. Raises WorkerdError when it failed or lost any, or does not answer."""
        try:
            status = control.ask(self._folder / f"{self._name}.sock", "status")
        except WorkerdError as error:
            raise WorkerdError(f"the daemon does not answer any more ({error}): {self._last_words()}") from error
        if status["jobs_failed"] or status["jobs_lost"]:
            raise WorkerdError(f"{status['jobs_failed']} jobs failed, {status['jobs_lost']} were lost")
        return int(status["jobs_done"])

    def peak_mb(self) -> float:
        """The most resident memory that it has had, in megabytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        kilobytes = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert kilobytes
        return int(kilobytes[1]) * 1024 / 1e6

    def _last_words(self) -> str:
        """The end of its log, which goes with the folder."""
        with suppress(OSError, IndexError):
            return (self._folder / f"{self._name}.log").read_text(errors="replace").splitlines()[-1]
        return "it left no log"


def _environment() -> dict[str, str]:
    """Ours without settings: what the benchmark measures must not hang on who calls it."""
    known = {key for name in Settings.model_fields for key in config.names(name)}
    return {key: value for key, value in os.environ.items() if key.upper().removeprefix("WORKERD_") not in known}
