"""`python -m …` as a process of its own that is there at once: forked from one that has the imports done."""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.fork_server import Order

SERVER = Path(__file__).parent / "fork_server.py"
LIMIT = 600.0  # seconds that a command may take: one of them installs another system
AT_START = ("PYTHON", "LANG", "LC_", "TZ", "LD_")  # what an interpreter heeds only as it starts
OURS = {name: value for name, value in os.environ.items() if name == "LANG" or name.startswith("PYTHON")}


class Forked:
    """A module that runs as `python -m` runs it, with the names of `subprocess.Popen`; its environment is exactly this."""

    def __init__(
        self,
        words: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        stdin: int,
        stdout: int,
        stderr: int,
        imports: Sequence[str] = (),
    ) -> None:
        module, *rest = words
        order: Order = {
            "module": module,
            "words": rest,
            "directory": str(cwd),
            "environment": dict(env),
            "imports": list(imports),
        }
        told, tells = os.pipe()
        with os.fdopen(tells, "wb"):
            socket.send_fds(server(), [json.dumps(order).encode()], [stdin, stdout, stderr, tells])
        self._told = os.fdopen(told, "rb", buffering=0)
        self.pid = self._number()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _end(self) -> None:
        self.returncode = self._number()
        self._told.close()

    def _number(self) -> int:
        return int(self._told.readline())


def needs_interpreter(env: Mapping[str, str]) -> bool:
    """Whether there are settings that a process heeds only as its interpreter starts, other than ours."""
    return {name: value for name, value in env.items() if name.startswith(AT_START)} != OURS


def run(
    words: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a module with these words to its end: what `subprocess.run` of `python -m` gives, and does for other interpreters."""
    if needs_interpreter(env):
        return subprocess.run(
            [sys.executable, "-m", *words],
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=LIMIT,
            cwd=cwd,
            env=env,
            check=False,
        )
    with tempfile.TemporaryFile() if stdin else Path(os.devnull).open("rb") as given:
        if stdin:
            given.write(stdin.encode())
            given.seek(0)
        return _captured(words, cwd, env, given.fileno())


def _captured(words: Sequence[str], cwd: Path, env: Mapping[str, str], given: int) -> subprocess.CompletedProcess[str]:
    pipes = [os.pipe() for _ in range(2)]
    (_, out), (_, err) = pipes
    process = Forked(words, cwd, env, given, out, err)
    for _, writing in pipes:
        os.close(writing)
    try:
        said, complained = _read([reading for reading, _ in pipes])
        code = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    finally:
        for reading, _ in pipes:
            os.close(reading)
    return subprocess.CompletedProcess(list(words), code, said, complained)


def _read(pipes: list[int]) -> list[str]:
    """What is written into each until nobody can write any more: neither the process nor what it has left running."""
    end = time.monotonic() + LIMIT
    read = {pipe: bytearray() for pipe in pipes}
    with selectors.DefaultSelector() as waiting:
        for pipe in pipes:
            waiting.register(pipe, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(max(end - time.monotonic(), 0))
            if not ready:
                raise subprocess.TimeoutExpired("python -m", LIMIT)
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                read[key.fd] += data
                if not data:
                    waiting.unregister(key.fd)
    return [text.decode().replace("\r\n", "\n") for text in read.values()]


_lock = threading.Lock()
_started: list[socket.socket] = []


def server() -> socket.socket:
    """Where commands are ordered, as Order says and with four files: who orders first starts it, and it ends with us."""
    with _lock:
        if not _started:
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            environment = {name: value for name, value in os.environ.items() if not name.startswith(AT_START)} | OURS
            subprocess.Popen(
                [sys.executable, SERVER, str(its.fileno())],
                pass_fds=[its.fileno()],
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
            )
            its.close()
            _started.append(ours)
        return _started[0]
