"""A daemon as a bare background process of this host."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerctl import control
from workerd.daemon import pidfile
from workerd.errors import ConfigError, NotRunning, WorkerdError

if TYPE_CHECKING:
    from workerd.config import Settings

START_LIMIT = 120.0  # seconds; the first start of an embedded database takes a few
GRACE = 20.0  # seconds beyond the drain that a stopping daemon needs to write its last results


def pid_of(settings: Settings) -> int | None:
    """The PID of the daemon of this name, when it runs."""
    return pidfile.owner(settings.pid_file)


def start(settings: Settings, flags: list[str]) -> int:
    """Start `workerd` with these flags in a session of its own; returns its PID when it is ready.

    Raises WorkerdError with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="workerctl-") as folder, tempfile.TemporaryFile() as words:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with listener:
            listener.bind(f"{folder}/notify")
            environment = {**os.environ, "NOTIFY_SOCKET": f"{folder}/notify", "WORKERD_BACKGROUND": "1"}
            daemon = subprocess.Popen(
                [sys.executable, "-m", "workerd", *flags], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=words,
                start_new_session=True, env=environment,
            )  # fmt: skip
            if _wait_ready(daemon, listener):
                daemon.returncode = 0  # it outlives us on purpose
                return daemon.pid
        code = daemon.wait()
        words.seek(0)
        raise _reason(words.read().decode(errors="replace"), code, settings)


def stop(settings: Settings, timeout: float | None, *, now: bool) -> None:
    """Drain the daemon and wait until it has gone. Raises NotRunning, WorkerdError when it does not go in time."""
    pid = pid_of(settings)
    if pid is None:
        raise NotRunning(f"no daemon named {settings.name} runs here")
    control.ask(settings.socket_path, "drain", timeout=timeout, now=now)
    limit = time.monotonic() + (settings.drain_timeout if timeout is None else timeout) + GRACE
    while pid_of(settings) == pid:
        if time.monotonic() > limit:
            raise WorkerdError(f"the daemon (PID {pid}) did not stop in time; `workerctl stop --now` cancels its jobs")
        time.sleep(0.02)


def reload(settings: Settings) -> tuple[int, int]:
    """Let a new process take over; returns the PIDs before and after.

    Raises NotRunning, WorkerdError with the reason when it did not start.
    """
    answer = control.ask(settings.socket_path, "reload", limit=START_LIMIT + GRACE)
    return answer["before"], answer["pid"]


def status(settings: Settings) -> dict[str, Any] | None:
    """What the daemon tells about itself; None when it does not run."""
    pid = pid_of(settings)
    if pid is None:
        return None
    try:
        return control.ask(settings.socket_path, "status")
    except NotRunning:
        return {"name": settings.name, "runtime": "local", "state": "starting", "pid": pid}


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
