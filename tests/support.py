"""Daemons for tests, the command line, and waiting for what shall become true."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil

from tests import command
from workerctl.runtimes.local import Local
from workerd.config import Configuration
from workerd.daemon.daemon import Daemon
from workerd.daemon.handover.launch import Launch
from workerd.daemon.parent import become_subreaper
from workerd.daemon.pidfile import PidFile, owner
from workerd.daemon.transport.choose import choose
from workerd.embedded import binaries
from workerd.tasks import load_modules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import asyncpg
    import pytest

    from workerd.settings import Settings

ROOT = Path(__file__).parent.parent
LIMIT = 120.0  # seconds that anything in a test may take, on a machine that is slow and busy


async def until(condition: Callable[[], Awaitable[Any]], what: str, limit: float = LIMIT) -> Any:
    """Wait until a question to the outside has a true answer, and return it: for states that no event announces."""
    end = time.monotonic() + limit
    while True:
        answer = await condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {limit:g} s: {what}"
        await asyncio.sleep(0.01)


async def state_of(db: asyncpg.Connection[asyncpg.Record], job_id: int) -> str | None:
    state: str | None = await db.fetchval("SELECT state FROM workerd.job WHERE id = $1", job_id)
    return state


async def until_state(db: asyncpg.Connection[asyncpg.Record], job_id: int, *states: str) -> asyncpg.Record:
    """Wait until the job is in one of the states; returns its row."""

    async def look() -> Any:
        return await db.fetchrow("SELECT * FROM workerd.job WHERE id = $1 AND state = ANY ($2)", job_id, states)

    row: asyncpg.Record = await until(look, f"job {job_id} becomes {' or '.join(states)}")
    return row


STOP_LIMIT = 60.0  # seconds for a daemon on the loop of the test to drain


class InProcess:
    """A daemon on the loop of the test."""

    def __init__(self, settings: Settings) -> None:
        settings.runtime_dir.mkdir(parents=True, exist_ok=True)
        self.settings = settings
        launch = Launch([], lambda: Configuration(settings, {}), {})
        tasks = load_modules(settings.tasks)
        self.daemon = Daemon(settings, choose(settings, tasks), tasks, PidFile(settings.pid_file), launch)

    async def __aenter__(self) -> InProcess:
        self._running = asyncio.create_task(self.daemon.run())
        ready = asyncio.create_task(self.daemon.ready.wait())
        await asyncio.wait([self._running, ready], timeout=LIMIT, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await self._running
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Ask over the control socket, as workerctl does."""
        reader, writer = await asyncio.open_unix_connection(self.settings.socket_path)
        writer.write(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await reader.readline())
        writer.close()
        return answer

    async def stop(self, **arguments: Any) -> None:
        """Drain; does nothing the second time."""
        if not self._running.done():
            await self.ask("drain", **arguments)
        await asyncio.wait([self._running], timeout=STOP_LIMIT)
        assert self._running.done(), f"the daemon has not ended {STOP_LIMIT:g} s after it was told to"
        await self._running


class Adopted:
    """A process that came to us when the one that had started it ended, as a daemon does that took over from another."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = LIMIT) -> int:
        if self.returncode is None:
            ended = os.pidfd_open(self.pid)
            ready, _, _ = select.select([ended], [], [], timeout)
            os.close(ended)
            assert ready, f"PID {self.pid} has not ended within {timeout:g} s"
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class DaemonProcess:
    """`python -m workerd` as a process that can be killed; after a hand-over, `process` is the one in charge."""

    def __init__(self, settings: Settings, **environment: str) -> None:
        self.settings = settings
        self._environment = {"WORKERD_TEST_DAEMON": uuid4().hex, **environment}  # inherited by whatever it starts
        self.process: subprocess.Popen[bytes] | Adopted | None = None
        self.earlier: list[subprocess.Popen[bytes] | Adopted] = []  # whose place was taken
        self._supervisor: socket.socket | None = None

    def __enter__(self) -> DaemonProcess:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.earlier, self.process):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        for each in psutil.process_iter():  # one that took over unseen, say
            if self._started(each):
                each.kill()
        if self._supervisor is not None:
            self._supervisor.close()

    @property
    def flags(self) -> list[str]:
        given = {
            name: value
            for name, value in vars(self.settings).items()
            if value != self.settings.model_fields[name].default
        }
        return [f"--{name.replace('_', '-')}={_text(value)}" for name, value in given.items() if value is not None]

    def start(self) -> None:
        """Start it and return when it is ready."""
        self.launch()
        self.hear("READY=1")

    def launch(self) -> None:
        """Start it."""
        path = self.settings.runtime_dir / "notify"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if self._supervisor is not None:
            self._supervisor.close()
        self._supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._supervisor.bind(str(path))
        become_subreaper()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workerd", *self.flags],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "NOTIFY_SOCKET": str(path), **self._environment},
        )

    def hear(self, word: str) -> None:
        """Return when the daemon has said this to its supervisor."""
        assert self.process is not None
        assert self._supervisor is not None
        ended = os.pidfd_open(self.process.pid)
        events: tuple[Any, ...] = (self._supervisor, ended)
        heard = ""
        try:
            while word not in heard:
                ready, _, _ = select.select(events, [], [], LIMIT)
                assert self._supervisor in ready, f"the daemon did not say {word}: {self.settings.log_path.read_text()}"
                heard = self._supervisor.recv(65536).decode()
        finally:
            os.close(ended)

    async def reload(self) -> float:
        """Hand over as `workerctl reload` does; returns the seconds it took. Raises WorkerdError with the reason."""
        self._listen()
        began = time.monotonic()
        await asyncio.to_thread(Local(self.settings, []).reload)
        self.follow()
        return time.monotonic() - began

    def _listen(self) -> None:
        """Take what was said: a supervisor that does not listen keeps a daemon waiting when it hands over."""
        assert self._supervisor is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                self._supervisor.recv(65536, socket.MSG_DONTWAIT)

    def follow(self) -> bool:
        """Whether another process is in charge now; `process` is that one then."""
        assert self.process is not None
        pid = owner(self.settings.pid_file)
        if pid is None or pid == self.process.pid:
            return False
        self.earlier.append(self.process)
        self.process = Adopted(pid)
        return True

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def left_behind(self) -> list[str]:
        """The command lines of processes that this one, or a process of its own, has started and that still run."""
        return [_command(process) for process in psutil.process_iter() if self._started(process)]

    def _started(self, process: psutil.Process) -> bool:
        try:
            mark = process.environ().get("WORKERD_TEST_DAEMON")
        except psutil.Error:
            return False
        return mark == self._environment["WORKERD_TEST_DAEMON"]

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, limit: float = LIMIT) -> int:
        assert self.process is not None
        return self.process.wait(limit)


@dataclass
class Ctl:
    """`workerctl` with the directories of one test."""

    environment: dict[str, str]
    directory: Path

    def __call__(self, *words: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **self.environment, **environment}
        return command.run(["workerctl", *words], self.directory, env, stdin)

    def json(self, *words: str) -> Any:
        """The parsed answer of a command that has to succeed."""
        done = self(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def hide(monkeypatch: pytest.MonkeyPatch, directory: Path, module: str) -> None:
    """Processes started from now on find no such module."""
    text = f"raise ModuleNotFoundError({f'No module named {module!r}'!r}, name={module!r})"
    (directory / f"{module}.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(directory), os.environ.get("PYTHONPATH", ""))))


def psql(dsn: str, script: str) -> subprocess.CompletedProcess[str]:
    """What psql says of a script."""
    return subprocess.run(
        [binaries.find() / "psql", "--no-psqlrc", dsn], input=script, capture_output=True, text=True, check=False
    )


def _command(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())}"
    except psutil.Error:
        return str(process.pid)


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
