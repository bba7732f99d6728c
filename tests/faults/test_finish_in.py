"""A handler's own writes and the success of its job, where the connection dies between any two messages: both, or neither."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import asyncpg

from tests.support import InProcess, until_state
from workerd import Job, Retry, task

if TYPE_CHECKING:
    from tests.faults.balance import Books
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

ENOUGH = 10**6  # messages


@dataclass
class Cutter:
    """Between a client and the server: counts the client's messages, and cuts the connection behind or before one of them."""

    directory: str
    address: str = ""
    armed: bool = False  # counts, and cuts
    messages: int = 0
    last: int = ENOUGH  # the one at which it cuts
    forwards: bool = True  # whether that one still reaches the server
    _server: asyncio.Server | None = field(default=None)

    async def start(self, dsn: str) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        parts = urlsplit(dsn)
        self.address = f"postgresql://workerd@127.0.0.1:{port}{parts.path}?sslmode=disable"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(f"{self.directory}/.s.PGSQL.5432")
        back = asyncio.create_task(self._back(server, to_client))
        try:
            await self._forward(client, to_server)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for writer in (to_server, to_client):
                writer.transport.abort()
            back.cancel()

    async def _forward(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        kind = b""  # the first message has none
        while True:
            length = await client.readexactly(4)
            body = await client.readexactly(int.from_bytes(length, "big") - 4)
            self.messages += self.armed
            cuts = self.armed and self.messages == self.last
            if not cuts or self.forwards:
                to_server.write(kind + length + body)
                await to_server.drain()
            if cuts:
                return
            kind = await client.readexactly(1)

    async def _back(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        while data := await server.read(65536):
            to_client.write(data)


cutters: dict[int, Cutter] = {}  # by job


@task(retry=Retry(max=5, interval=0.01), result_ttl="1d")
async def writes_and_finishes(n: int, *, job: Job) -> None:
    """Its connection leads through the cutter of its number, which cuts in the first attempt."""
    cutter = cutters[n]
    cutter.armed = False
    connection = await asyncpg.connect(cutter.address)
    try:
        cutter.armed = job.attempt == 1
        async with connection.transaction():
            await connection.execute("INSERT INTO ran (n, attempt) VALUES ($1, $2)", n, job.attempt)
            await job.finish_in(connection, {"n": n})
    finally:
        connection.terminate()


async def test_the_row_and_the_success_are_both_there_or_both_not_wherever_the_connection_is_cut(
    settings: Settings, queue: Queue, db: DB, dsn: str, books: Books
) -> None:
    await db.execute("CREATE TABLE ran (n int, attempt int)")
    (directory,) = parse_qs(urlsplit(dsn).query)["host"]
    async with InProcess(settings):
        whole = await _run(0, ENOUGH, True, queue, db, dsn, directory)
        assert whole["attempt"] == 1
        messages = cutters[0].messages
        assert messages > 8
        retried = 0
        for place in range(1, messages + 1):
            for forwards in (True, False):
                row = await _run(2 * place + forwards, place, forwards, queue, db, dsn, directory)
                retried += row["attempt"] > 1
        assert retried >= messages  # nothing was committed where the commit did not reach the server
        rows = await db.fetch("SELECT n, count(*) AS rows FROM ran GROUP BY n")
        assert {row["n"]: row["rows"] for row in rows} == dict.fromkeys(cutters, 1)
    assert await books.close() == []
    cutters.clear()


async def _run(n: int, last: int, forwards: bool, queue: Queue, db: DB, dsn: str, directory: str) -> asyncpg.Record:
    """One job whose first attempt is cut there; its row in the end."""
    cutter = cutters[n] = Cutter(directory, last=last, forwards=forwards)
    await cutter.start(dsn)
    job = await queue.enqueue("writes_and_finishes", {"n": n})
    row = await until_state(db, job, "succeeded")
    await cutter.stop()
    return row
