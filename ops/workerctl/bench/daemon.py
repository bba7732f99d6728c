"""A daemon of the benchmark: `python -m workerd` as a process beside us."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Self

from workerctl.bench.process import HEAR_LIMIT, ContenderError, last_line
from workerctl.bench.worker import Worker

if TYPE_CHECKING:
    from pathlib import Path

WORKERS = 100
QUEUE = "default"  # the only one that it serves


class Daemon(Worker):
    """Starts at the beginning of the `async with` block, drains at its end."""

    def __init__(self, dsn: str, folder: Path, name: str, workers: int = WORKERS) -> None:
        flags = {
            "name": name,
            "workers": workers,
            "queues": QUEUE,
            "tasks": "workerctl.bench.tasks",
            "state-dir": folder,
            "runtime-dir": folder,
            "log-dir": folder,
        }
        command = [sys.executable, "-m", "workerd", *(f"--{flag}={value}" for flag, value in flags.items())]
        self._log = folder / f"{name}.log"
        self._notify = folder / f"{name}.notify"
        # The address is no flag, for it may hold a password.
        super().__init__(command, folder, {"DATABASE_URL": dsn, "NOTIFY_SOCKET": str(self._notify)}, name)

    async def __aenter__(self) -> Self:
        self._notify.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._listener.bind(str(self._notify))
        self._ready_at: float | None = None
        return await super().__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        self._listener.close()

    async def begin(self) -> float:
        """It begins by itself, with a message to its supervisor."""
        return await self._message()

    async def ready(self) -> float:
        while self._ready_at is None:
            await self._message()
        return self._ready_at

    async def stop(self) -> dict[str, Any]:
        self._process.send_signal(signal.SIGTERM)
        return await self.hear("end")

    def last_words(self) -> str:
        """The end of its log, which goes with the folder."""
        return last_line(self._log)

    async def _message(self) -> float:
        """When its next message came."""
        loop = asyncio.get_running_loop()
        message = asyncio.create_task(loop.sock_recv(self._listener, 65536))
        ended = asyncio.create_task(self._process.wait())
        try:
            async with asyncio.timeout(HEAR_LIMIT):
                await asyncio.wait((message, ended), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError as error:
            raise ContenderError(f"{self._name} did not start: {self.last_words()}") from error
        finally:
            ended.cancel()
            if not message.done():
                message.cancel()
        if not message.done() or message.cancelled():
            raise ContenderError(f"{self._name} did not start: {self.last_words()}")
        at = time.monotonic()
        if b"READY=1" in message.result().split(b"\n"):
            self._ready_at = at
        return at
