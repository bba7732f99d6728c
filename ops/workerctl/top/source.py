"""The source: what the dashboard shows, from the daemon, the database and the log; each of them may be away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg

from workerd.errors import DatabaseError, JobError, NotFound
from workerd.locate import locate
from workerd.queue import change, inspect, pages
from workerd.queue.change import not_retried
from workerd.queue.client import Queue
from workerd.queue.database import CONNECTION_ERRORS

if TYPE_CHECKING:
    from workerctl.runtimes.runtime import Runtime

LIMIT = 3.0  # seconds that the database may take to answer
JOBS = 100  # rows of the list
LINES = 200  # of the log
TROUBLE = (*CONNECTION_ERRORS, asyncpg.PostgresError, asyncpg.InterfaceError)


class Source:
    """Asks one daemon, and the database of the same settings."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._queue: Queue | None = None

    async def daemon(self) -> list[dict[str, Any]]:
        """As `Runtime.status`. Raises WorkerdError, OSError."""
        return await asyncio.to_thread(self.runtime.status)

    async def log(self) -> tuple[list[str], str]:
        """The last records, and why there are none. Raises WorkerdError, OSError."""
        log = await asyncio.to_thread(self.runtime.log, LINES, lambda _: True, errors=False)
        return log.last, log.missing

    async def queues(self) -> list[dict[str, Any]]:
        """As `queues list`. Raises WorkerdError."""
        found: list[dict[str, Any]] = await self._ask(inspect.queues)
        return found

    async def jobs(self, state: str | None) -> list[dict[str, Any]]:
        """The newest jobs, of a state or of all. Raises WorkerdError."""
        wanted = pages.Wanted(state=state)
        found: list[dict[str, Any]] = await self._ask(lambda connection: pages.page(connection, wanted, JOBS))
        return found

    async def job(self, job_id: int) -> dict[str, Any]:
        """As `jobs show`. Raises WorkerdError."""
        found = await self._ask(lambda connection: inspect.job(connection, job_id))
        if found is None:
            raise NotFound(f"there is no job {job_id} any more")
        told: dict[str, Any] = found
        return told

    async def pause(self, queue: str, *, paused: bool) -> None:
        """Raises WorkerdError."""
        if not await self._ask(lambda connection: inspect.pause(connection, queue, paused=paused)):
            raise JobError(f"there is no queue {queue}")

    async def retry(self, job_id: int) -> None:
        """Raises WorkerdError."""
        await self._ask(lambda connection: _retry(connection, job_id))

    async def close(self) -> None:
        """Drop the connections."""
        if self._queue is not None:
            self._queue.terminate()
            self._queue = None

    async def _ask(self, question: Any) -> Any:
        try:
            async with asyncio.timeout(LIMIT):
                queue = await self._open()
                async with queue.connection() as connection:
                    return await question(connection)
        except TimeoutError as error:
            await self.close()
            raise DatabaseError(f"the database does not answer within {LIMIT:g} s") from error
        except TROUBLE as error:
            await self.close()
            raise DatabaseError(f"the database: {error}") from error
        except DatabaseError:
            await self.close()
            raise

    async def _open(self) -> Queue:
        """Whoever looks starts no database."""
        if self._queue is None:
            settings = self.runtime.settings
            if settings.manager_url is not None and settings.database_url is None:
                raise DatabaseError("none on this host, which works through a manager (MANAGER_URL)")
            if settings.uses_embedded and not await asyncio.to_thread(_embedded_runs, settings.state_dir):
                raise DatabaseError("the embedded PostgreSQL does not run; `workerctl start` starts it")
            where = await asyncio.to_thread(locate, settings)
            self._queue = await Queue.connect(
                where.url, pool_size=2, acquire_timeout=LIMIT, pooled=where.pooled, name="workerctl top"
            )
        return self._queue


async def _retry(connection: Any, job_id: int) -> None:
    refusal = not_retried(job_id, (await change.retry(connection, [job_id]))[job_id])
    if refusal is not None:
        raise JobError(refusal)


def _embedded_runs(state_dir: Any) -> bool:
    from workerd import embedded

    return embedded.is_running(state_dir)
