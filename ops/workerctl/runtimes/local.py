"""A daemon as a bare background process of this host."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerctl import control, log_files
from workerctl.runtimes.runtime import Launched, Log, Runtime
from workerd.daemon import pidfile
from workerd.errors import ConfigError, NotRunning, WorkerdError

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerctl.runtimes.keeper import Keeper
    from workerd.config import Settings

START_LIMIT = 120.0  # seconds; the first start of an embedded database takes a few
GRACE = 20.0  # seconds beyond the drain that a stopping daemon needs to write its last results


class Local(Runtime):
    """A `workerd` in a session of its own, found by its PID file and asked through its control socket."""

    name = "local"

    def is_there(self) -> bool:
        return self._pid is not None

    def who(self) -> str | None:
        return None if self._pid is None else f"PID {self._pid}"

    def keeper(self) -> Keeper | None:
        pid = self._pid
        if pid is None:
            return None
        from workerctl.runtimes.keeper import keeper_of

        return keeper_of(pid)

    def launch(self) -> Launched | None:
        try:
            told = control.ask(self.settings.socket_path, "launch")
        except NotRunning:
            return None
        file = told["config"]
        return Launched(Path(told["directory"]), told["flags"], None if file is None else Path(file))

    def start(self, count: int | None) -> None:
        import tempfile

        # the number stands among the flags
        with tempfile.TemporaryDirectory(prefix="workerctl-") as folder, tempfile.TemporaryFile() as words:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            with listener:
                listener.bind(f"{folder}/notify")
                environment = {**os.environ, "NOTIFY_SOCKET": f"{folder}/notify", "WORKERD_BACKGROUND": "1"}
                daemon = subprocess.Popen(
                    [sys.executable, "-m", "workerd", *self.flags],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=words,
                    start_new_session=True,
                    env=environment,
                )
                if _wait_ready(daemon, listener):
                    daemon.returncode = 0  # it outlives us on purpose
                    return
            code = daemon.wait()
            words.seek(0)
            raise _reason(words.read().decode(errors="replace"), code, self.settings)

    def stop(self, timeout: float | None, *, now: bool) -> None:
        pid = self._pid
        if pid is None:
            raise NotRunning(f"no daemon named {self.settings.name} runs here")
        control.ask(self.settings.socket_path, "drain", timeout=timeout, now=now)
        limit = time.monotonic() + (self.settings.drain_timeout if timeout is None else timeout) + GRACE
        while self._pid == pid:
            if time.monotonic() > limit:
                raise WorkerdError(
                    f"the daemon (PID {pid}) did not stop in time; `workerctl stop --now` cancels its jobs"
                )
            time.sleep(0.02)

    def reload(self) -> str:
        # Called by systemd, our environment is what it gives the unit's processes now; the daemon's own is that of its start.
        environment = dict(os.environ) if "INVOCATION_ID" in os.environ else None
        answer = control.ask(self.settings.socket_path, "reload", limit=START_LIMIT + GRACE, environment=environment)
        return f"PID {answer['pid']} took over from {answer['before']}"

    def scale(self, count: int) -> str:
        answer = control.ask(self.settings.socket_path, "scale", workers=count)
        return f"{answer['workers']} workers (were {answer['before']})"

    def status(self) -> list[dict[str, Any]]:
        pid = self._pid
        if pid is None:
            return []
        try:
            return [control.ask(self.settings.socket_path, "status")]
        except NotRunning:
            return [{"name": self.settings.name, "runtime": self.name, "state": "starting", "pid": pid}]

    def health(self) -> dict[str, Any]:
        return control.ask(self.settings.socket_path, "health")

    def log(self, most: int, wanted: Callable[[str], bool], *, errors: bool) -> Log:
        path = self.settings.error_log_path if errors else self.settings.log_path
        there = path.exists()
        missing = "" if there else f"there is no log at {path} (the daemon has not run yet, or LOG_DIR differs)"
        end = path.stat().st_size if there else 0
        return Log(log_files.last_records(path, wanted, most), log_files.new_records(path, wanted, end), missing)

    @property
    def _pid(self) -> int | None:
        return pidfile.owner(self.settings.pid_file)


def _wait_ready(daemon: subprocess.Popen[bytes], listener: socket.socket) -> bool:
    """Whether the daemon said READY=1 before it ended."""
    ended = os.pidfd_open(daemon.pid)
    events: tuple[Any, ...] = (listener, ended)
    try:
        limit = time.monotonic() + START_LIMIT
        while time.monotonic() < limit:
            heard, _, _ = select.select(events, [], [], limit - time.monotonic())
            if listener in heard and b"READY=1" in listener.recv(65536).split(b"\n"):
                return True
            if ended in heard:
                return False
    finally:
        os.close(ended)
    daemon.terminate()
    return False


def _reason(words: str, code: int, settings: Settings) -> WorkerdError:
    """What a daemon that did not start said last, as the error to raise."""
    said = [line.removeprefix("workerd: ") for line in words.splitlines() if line.startswith("workerd: ")]
    if code == 2 and said:
        return ConfigError(*said)
    last = said[-1:] or words.strip().splitlines()[-1:] or [f"it ended with {code}"]
    return WorkerdError(f"the daemon did not start: {last[0]} (log: {Path(settings.log_path)})")
