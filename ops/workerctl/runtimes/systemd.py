"""A daemon as a unit of systemd: `invoice-worker.service`, or `invoice-worker@NAME.service` for one with a name of its own."""

from __future__ import annotations

import os
import select
import subprocess
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerctl import control
from workerctl.runtimes.journal import Journal
from workerctl.runtimes.runtime import Log, Runtime
from workerd.errors import ConfigError, NotRunning, WorkerdError
from workerd.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

BOOTED = Path("/run/systemd/system")  # sd_booted(3)
GRACE = 20.0  # seconds beyond the drain that a stopping daemon needs to write its last results
OURS = (
    "--name",
    "--workers",
    "--config",
)  # flags that say which daemon, how many workers, where commands read settings


class Systemd(Runtime):
    """Started, stopped and reloaded by `systemctl`, asked through its control socket; its log is the journal."""

    name = "systemd"

    def is_there(self) -> bool:
        return BOOTED.is_dir() and self._show("LoadState") == "loaded"

    def who(self) -> str | None:
        return None if self._pid is None else f"{self.unit}, PID {self._pid}"

    def start(self, count: int | None) -> None:
        other = [flag for flag in self.flags if flag.partition("=")[0] not in OURS]
        if other:
            raise ConfigError(
                f"{self.unit} has its settings in its environment file (systemctl cat {self.unit}): set {other[0]} there"
            )
        self._systemctl("start", "did not start")
        if count is not None and count != self._ask("status")["workers"]:
            self.scale(count)

    def stop(self, timeout: float | None, *, now: bool) -> None:
        if self._show("ActiveState") in ("inactive", "failed"):
            raise NotRunning(f"{self.unit} does not run")
        pid = self._pid
        if pid is not None and (now or timeout is not None):
            self._ask("drain", timeout=timeout, now=now)
            _await_end(pid, (self.settings.drain_timeout if timeout is None else timeout) + GRACE)
        self._systemctl("stop", "did not stop")

    def reload(self) -> str:
        before = self._pid
        if before is None:
            raise NotRunning(f"{self.unit} does not run (start it with `workerctl start`)")
        self._systemctl("reload", "was not reloaded")
        return f"PID {self._pid} took over from {before}"

    def scale(self, count: int) -> str:
        answer = self._ask("scale", workers=count)
        return f"{answer['workers']} workers (were {answer['before']})"

    def status(self) -> list[dict[str, Any]]:
        if self._pid is None:
            return []
        mine = {"runtime": self.name, "unit": self.unit}
        try:
            return [{**self._ask("status"), **mine}]
        except NotRunning:
            return [{"name": self.settings.name, **mine, "state": "starting", "pid": self._pid}]

    def health(self) -> dict[str, Any]:
        return self._ask("health")

    def log(self, most: int, wanted: Callable[[str], bool], *, errors: bool) -> Log:
        journal = Journal(self.unit, errors=errors)
        end = journal.end()
        missing = "" if end else f"the journal has no line of {self.unit} that you may read (group systemd-journal)"
        return Log(journal.last(end, most, wanted) if end else [], journal.new(end, wanted), missing)

    @cached_property
    def unit(self) -> str:
        name = self.settings.name
        plain = name == Settings.model_fields["name"].default
        return "invoice-worker.service" if plain else f"invoice-worker@{name}.service"

    @property
    def _pid(self) -> int | None:
        """Of the daemon in charge."""
        pid = int(self._show("MainPID") or 0)
        return pid or None

    def _ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        return control.ask(self._socket, verb, **arguments)

    @cached_property
    def _socket(self) -> Path:
        """Where the unit's daemon listens, whatever directory is ours."""
        return Path("/run", self._show("RuntimeDirectory"), self.settings.socket_path.name)

    def _show(self, what: str) -> str:
        done = _run("show", "--property", what, "--value", self.unit)
        return done.stdout.strip()

    def _systemctl(self, verb: str, failed: str) -> None:
        """Raises WorkerdError with the daemon's own reason where the journal has it, else systemd's."""
        began = time.time()
        done = _run(verb, self.unit)
        if done.returncode == 0:
            return
        reason = self._own_words(began) or (done.stderr.strip().splitlines() or ["systemctl failed"])[0]
        raise WorkerdError(f"{self.unit} {failed}: {reason} (journalctl -u {self.unit})")

    def _own_words(self, began: float) -> str | None:
        """Why the daemon, or the command that reloads it, has failed since that moment."""
        try:
            lines = Journal(self.unit).since(began)
        except WorkerdError:  # not for us to read
            return None
        told = [line for line in lines if line.startswith(("workerd: ", "workerctl: "))]
        return told[-1].partition(": ")[2] if told else None


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)


def _await_end(pid: int, limit: float) -> None:
    """Raises WorkerdError when the process does not end in time, in seconds."""
    try:
        end = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([end], [], [], limit)[0]:
            raise WorkerdError(f"the daemon (PID {pid}) did not stop in time; `workerctl stop --now` cancels its jobs")
    finally:
        os.close(end)
