"""Sessions of the database, as a daemon uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workerd.queue import dependency, ends, finish, job_log, key, lane, node, orders, progress, signals, steps, tally
from workerd.queue.cycle import cycle
from workerd.queue.database import host_in_use

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractAsyncContextManager

    from workerd.job import AnyConnection
    from workerd.job_lines import JobLines
    from workerd.queue.claim import Answer, Claimed, Wanted
    from workerd.queue.client import Queue
    from workerd.queue.database import Connection
    from workerd.queue.finish import Finished, Lease
    from workerd.queue.lane import Lane
    from workerd.queue.node import Figures, Registration
    from workerd.queue.orders import Order
    from workerd.queue.progress import Progress
    from workerd.queue.tally import Tally


class PostgresSession:
    """The claimer's `Session`."""

    def __init__(self, connection: Connection, dsn: str) -> None:
        self.connection = connection
        self._dsn = dsn

    @property
    def is_closed(self) -> bool:
        return self.connection.is_closed()

    def terminate(self) -> None:
        self.connection.terminate()

    async def host(self) -> str:
        return await host_in_use(self.connection, self._dsn)

    async def listen(self, heard: Callable[[str], None], lost: Callable[[], None]) -> None:
        await self.connection.add_listener("workerd", lambda _connection, _pid, _channel, text: heard(str(text)))
        self.connection.add_termination_listener(lambda _: lost())

    async def lanes(self, node: int, queues: Collection[str], name: str) -> list[Lane]:
        return await lane.lanes(self.connection, queues, name)

    async def cycle(self, node: int, ended: Sequence[Finished], wanted: Wanted) -> tuple[list[bool], Answer]:
        return await cycle(self.connection, node, ended, wanted)

    async def write(self, node: int, ended: list[Finished]) -> list[bool]:
        return await ends.write(self.connection, node, ended)

    async def leases(self, node: int) -> list[Lease]:
        return await finish.own_leases(self.connection, node)

    async def give_back(self, node: int, n: int, positions: list[int], ttl: float) -> None:
        await finish.give_back(self.connection, node, n, positions, ttl)

    async def orders(self, node: int) -> list[Order]:
        return await orders.waiting(self.connection, node)

    async def order_done(self, node: int, order: int, result: dict[str, Any] | None, error: str | None) -> None:
        await orders.done(self.connection, node, order, result, error)

    async def tally(self, node: int, tallies: dict[tuple[str, str], Tally]) -> None:
        await tally.add(self.connection, node, tallies)


class PostgresPresence:
    """The lease thread's `Presence`: its lock goes with its session."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def terminate(self) -> None:
        self._connection.terminate()

    def on_lost(self, lost: Callable[[], None]) -> None:
        self._connection.add_termination_listener(lambda _: lost())

    async def lock(self, node_id: int) -> bool:
        return await node.lock(self._connection, node_id)

    async def unlock(self) -> None:
        await self._connection.execute("SELECT pg_advisory_unlock_all()")

    async def register(self, node_id: int, about: Registration, workers: int) -> None:
        await node.register(self._connection, node_id, about, workers=workers, locked=True)

    async def beat(self, node_id: int, figures: Figures) -> bool:
        return await node.beat(self._connection, node_id, figures)

    async def leave(self, node_id: int, figures: Figures) -> None:
        await node.leave(self._connection, node_id, figures)


class PostgresDesk:
    """The `Desk` of running jobs, on the daemon's pool."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def connection(self) -> AbstractAsyncContextManager[AnyConnection]:
        return self._queue.connection()

    async def report(self, node: int, reports: Sequence[Progress]) -> None:
        async with self._queue.connection() as connection:
            await progress.report(connection, node, reports)

    async def keep_lines(self, node: int, logged: Sequence[tuple[Claimed, JobLines]]) -> None:
        async with self._queue.connection() as connection:
            await job_log.write(connection, node, logged)

    async def steps(self, job: Claimed) -> dict[str, str]:
        async with self._queue.connection() as connection:
            return await steps.known(connection, job.id)

    async def keep_step(self, job: Claimed, name: str, result: str) -> str | None:
        async with self._queue.connection() as connection:
            return await steps.keep(connection, job, name, result)

    async def look(self, job: Claimed, event: str, timeout: float) -> tuple[str | None, float | None]:
        async with self._queue.connection() as connection:
            return await signals.look(connection, job, event, timeout)

    async def free_key(self, job: Claimed) -> None:
        assert job.key is not None
        async with self._queue.connection() as connection:
            await key.free(connection, job.key, job.id)

    async def parents(self, job: Claimed) -> dict[int, Any]:
        async with self._queue.connection() as connection:
            return await dependency.results(connection, job.id)
