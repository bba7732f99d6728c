"""Any peer as a contender, driven through its runner."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from workerctl.bench.contender import Contender
from workerctl.bench.process import Process
from workerctl.bench.server import NAME, database
from workerctl.bench.worker import Worker
from workerd.queue.database import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    import asyncpg

    from workerctl.bench.peers.catalogue import Peer

LEAST = 100  # jobs of a slow peer, however few the others have


class Runner(Worker):
    """A runner that works."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        name: str,
        settings: Mapping[str, Any],
    ) -> None:
        super().__init__(command, folder, environment, name)
        self._settings = settings

    async def begin(self) -> float:
        await self.tell("work", **self._settings)
        at: float = (await self.hear("begin"))["at"]
        return at

    async def ready(self) -> float:
        at: float = (await self.hear("ready"))["at"]
        return at

    async def stop(self) -> dict[str, Any]:
        await self.tell("stop")
        return await self.hear("end")


class PeerContender(Contender):
    """`peer` says what it is."""

    def __init__(
        self,
        peer: Peer,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        connection: asyncpg.Connection[asyncpg.Record],
        producer: Process,
    ) -> None:
        super().__init__(connection, producer)
        self.name, self.title, self.newest, self.clearing = peer.name, peer.title, peer.newest, peer.clear
        self.peer = peer
        self._command, self._environment, self._folder = command, environment, folder

    def worker(self, number: int = 0, *, quick: bool = False) -> Runner:
        settings = self.peer.quick if quick else self.peer.busy
        return Runner(self._command, self._folder, self._environment, f"{self.name}{number}", settings)

    def sized(self, jobs: int) -> int:
        return min(jobs, max(LEAST, int(jobs * self.peer.share)))


@asynccontextmanager
async def open_peer(peer: Peer, url: str, folder: Path) -> AsyncIterator[PeerContender]:
    """With a new database on this server, gone afterwards. Raises UnavailableError or ContenderError when it does not work here."""
    command, environment = await peer.runner()
    async with database(url, f"_{peer.name}") as dsn:
        environment = {**environment, "DATABASE_URL": dsn}
        connection = await connect(dsn, NAME)
        try:
            async with Process(command, folder, environment, peer.name) as producer:
                contender = PeerContender(peer, command, environment, folder, connection, producer)
                await contender.ask("prepare")
                yield contender
        finally:
            await connection.close()
