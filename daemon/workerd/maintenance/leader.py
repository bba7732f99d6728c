"""The leader: one node of the fleet, elected by a session lock, runs the maintenance services for all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg

from workerd.aio import Backoff
from workerd.error_text import message_of
from workerd.errors import DatabaseError
from workerd.maintenance.admitter import Admitter
from workerd.maintenance.mover import Mover
from workerd.maintenance.pruner import Pruner
from workerd.maintenance.reindexer import Reindexer
from workerd.maintenance.rescuer import Rescuer
from workerd.maintenance.sampler import Sampler
from workerd.maintenance.scheduler import Scheduler
from workerd.maintenance.stager import Stager
from workerd.maintenance.surveyor import Surveyor
from workerd.queue.database import CONNECTION_ERRORS, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.config import Settings
    from workerd.maintenance.census import Census
    from workerd.queue.database import Connection
    from workerd.tasks import Task

# Seconds between two attempts to become the leader: with the second for which a free lock is forgiven less than two.
CANDIDACY = 0.5
_ELECT = "SELECT pg_try_advisory_lock('workerd.node'::regclass::oid::int, 0)"
# A leader asks something several times a second. A session that has been silent is that of a frozen or vanished host, which a beat of its
# node that is overdue shows soon; without one the loop of that node may be blocked for a while only.
_DEPOSE = """
    SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.objid = 0 AND l.pid <> pg_backend_pid()
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.classid = 'workerd.node'::regclass::oid
        AND a.state <> 'active' AND (
            a.state_change < clock_timestamp() - make_interval(secs => $1)
            OR a.state_change < clock_timestamp() - make_interval(secs => $2) AND (
                SELECT bool_and(n.beat < clock_timestamp() - make_interval(secs => 3 * n.heartbeat)) FROM workerd.node n
                WHERE n.dead_at IS NULL AND a.application_name = 'worker ' || n.name || ' maintenance'))
"""
SILENCE = 5.0  # seconds
SILENCE_WITHOUT_BEAT = 1.0  # seconds

SETTLING = (
    0.2  # seconds for which a new leader lets jobs go first: what it asks for the first time is planned by the server
)

AGAIN = 2.0  # seconds until a service that failed is run again
_NO_SCHEMA = (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError)

log = logging.getLogger(__name__)


class Service(Protocol):
    async def run_once(self, connection: Connection) -> float:
        """Do the work once; returns the seconds until it is to be done again."""
        ...


class Leader:
    """Stands for election, and leads while its connection lives."""

    def __init__(
        self,
        dsn: str,
        settings: Settings,
        tasks: dict[str, Task[..., object]],
        name: str,
        census: Census,
        node: Callable[[], int],
    ) -> None:
        self._dsn = dsn
        self._settings = settings
        self._tasks = tasks
        self._name = name
        self._census = census
        self._node = node  # the id of this node, which may change
        self._admit = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled; connection trouble and failing services are logged and survived."""
        backoff = Backoff(2.0, first=0.1)
        while True:
            try:
                connection = await connect(self._dsn, self._name)
                try:
                    backoff.reset()
                    while not await connection.fetchval(_ELECT):
                        if await connection.fetch(_DEPOSE, SILENCE, SILENCE_WITHOUT_BEAT):
                            log.warning("the leader has been silent for too long: its session is ended")
                        await asyncio.sleep(CANDIDACY)
                    await self._lead(connection)
                finally:
                    connection.terminate()
            except (DatabaseError, *CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                pause = backoff.next()
                log.warning("maintenance: %s; again in %.1f s", message_of(error), pause)
                await asyncio.sleep(pause)

    async def _lead(self, connection: Connection) -> None:
        log.info("this node leads: it stages, rescues, prunes and reindexes for all")
        stager, scheduler, admitter = Stager(), Scheduler(), Admitter(self._settings, self._node)
        services: list[Service] = [
            stager,
            scheduler,
            admitter,
            Mover(),
            Rescuer(self._settings, self._census),
            Pruner(self._settings, self._tasks),
            self._census,
            Sampler(self._census),
            Surveyor(self._census),
        ]
        due = {**dict.fromkeys(services, monotonic() + SETTLING), stager: 0.0}
        await connection.add_listener("workerd", self._notified)
        reindexer = asyncio.create_task(Reindexer(self._dsn, self._name).run(), name="reindexer")
        try:
            while True:
                for service in services:
                    if due[service] <= monotonic():
                        due[service] = monotonic() + await self._run_once(service, connection)
                if reindexer.done():
                    await reindexer  # it ends by an error nobody foresaw
                if await self._told_within(min(due.values()) - monotonic()):
                    due[stager] = due[scheduler] = due[admitter] = 0.0
        finally:
            self._census.forget()
            reindexer.cancel()
            await asyncio.wait([reindexer])

    async def _run_once(self, service: Service, connection: Connection) -> float:
        """The pause until the next time; what stops one service, a value that nobody foresaw say, must not stop the others."""
        try:
            return await service.run_once(connection)
        except asyncpg.PostgresError as error:
            if connection.is_closed() or isinstance(error, _NO_SCHEMA):
                raise
            log.warning("maintenance: %s: %s; again in %.0f s", type(service).__name__, error, AGAIN)
            return AGAIN
        except (ValueError, TypeError, ArithmeticError, LookupError):  # of a row that cannot be read
            log.exception("maintenance: %s; again in %.0f s", type(service).__name__, AGAIN)
            return AGAIN

    async def _told_within(self, seconds: float) -> bool:
        """Wait until a job waits for admission that did not before, or was answered, at most so long; whether it does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._admit.wait()
        told = self._admit.is_set()
        self._admit.clear()
        return told

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        if payload == "admit":
            self._admit.set()
