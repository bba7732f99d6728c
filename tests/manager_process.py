"""A manager as a process of its own, on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.command import Forked, needs_interpreter
from tests.support import LIMIT, ROOT, until
from workerd.queue import tokens

if TYPE_CHECKING:
    import asyncpg

    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


UNUSED = ssl.SSLContext(
    ssl.PROTOCOL_TLS_CLIENT
)  # over plain HTTP: to read the certificates that are trusted takes 50 ms a client
IMPORTS = ("uvicorn", "workerctl.manager.serve", "workerctl.manager.app")


class ManagerProcess:
    """`workerctl manager`, which can be killed and started again at the same address."""

    def __init__(self, dsn: str, directory: Path, *words: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "manager.log"
        self._words = words
        self._environment = {
            "DATABASE_URL": dsn,
            "STATE_DIR": str(directory),
            "RUNTIME_DIR": str(directory / "run"),
            "LOG_DIR": str(directory),
            "NODE_NAME": "manager",
        }
        self.process: subprocess.Popen[bytes] | Forked | None = None

    def __enter__(self) -> ManagerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    async def start(self) -> None:
        """Returns when it answers."""
        with self.log.open("ab") as log:
            self.process = self._begin({**os.environ, **self._environment}, log.fileno())

        async def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            try:
                async with httpx.AsyncClient(timeout=LIMIT, verify=UNUSED) as client:
                    return (await client.get(f"{self.url}/readyz")).status_code == 200
            except httpx.HTTPError:
                return False

        await until(answers, "the manager answers")

    def _begin(self, env: dict[str, str], log: int) -> subprocess.Popen[bytes] | Forked:
        words = ["workerctl", "manager", "--port", str(self.port), *self._words]
        with Path(os.devnull).open("rb") as nothing:
            if needs_interpreter(env):
                return subprocess.Popen(
                    [sys.executable, "-m", *words], cwd=ROOT, env=env, stdin=nothing, stdout=log, stderr=log
                )
            return Forked(words, ROOT, env, nothing.fileno(), log, log, IMPORTS)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    async def stop(self) -> None:
        """As an operator does; it ends in time although nodes ask."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self.process.wait, LIMIT)

    def client(self, token: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=LIMIT, verify=UNUSED
        )


async def through(manager: ManagerProcess, settings: Settings, db: DB, name: str = "edge") -> Settings:
    """The settings of a node that works through the manager, with a token of its own."""
    token = await tokens.create(db, name, ["work"])
    places = {"runtime_dir": settings.runtime_dir / name, "log_dir": settings.log_dir / name}
    return settings.model_copy(
        update={"database_url": None, "manager_url": manager.url, "api_token": token, "name": name, **places}
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
