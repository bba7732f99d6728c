"""The transport of a node that reaches the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workerd import embedded
from workerd.daemon.opening import Opening
from workerd.daemon.threads import in_thread
from workerd.daemon.transport.postgres_session import PostgresDesk, PostgresPresence, PostgresSession
from workerd.queue import default_queue
from workerd.queue.database import PATIENCE_CONNECTING, connect, location
from workerd.queue.stranded import is_stranded

if TYPE_CHECKING:
    from workerd.config import Settings
    from workerd.daemon.transport.base import Session
    from workerd.locate import Location
    from workerd.queue.client import Queue
    from workerd.tasks import Task


class PostgresTransport:
    """Sessions past any pooler for the daemon itself, a pool for its jobs."""

    def __init__(self, settings: Settings, where: Location, tasks: dict[str, Task[..., Any]]) -> None:
        self.place = location(where.url)
        self.direct: str | None = where.direct
        self._dsn = where.direct
        self._where = where
        self._settings = settings
        self._name = f"worker {settings.node}"
        self._opening = Opening(settings, where, tasks, self._name)
        self._queue: Queue | None = None

    async def open(self) -> PostgresSession:
        self._queue, connection = await self._opening.open()
        default_queue.set_default(self._queue)
        return PostgresSession(connection, self._dsn)

    async def session(self) -> PostgresSession:
        connection = await connect(self._dsn, self._name, claims=True, timeout=PATIENCE_CONNECTING)
        return PostgresSession(connection, self._dsn)

    async def is_stranded(self, session: Session) -> bool:
        assert isinstance(session, PostgresSession)
        pid = session.connection.get_server_pid()
        other = await connect(self._dsn, f"{self._name} examiner", timeout=PATIENCE_CONNECTING)
        try:
            return await is_stranded(other, pid, self._name, PATIENCE_CONNECTING)
        finally:
            other.terminate()

    async def presence(self, name: str, timeout: float, limit: float) -> PostgresPresence:
        return PostgresPresence(
            await connect(self._dsn, f"worker {name} lease", timeout=timeout, command_timeout=limit)
        )

    @property
    def desk(self) -> PostgresDesk:
        assert self._queue is not None
        return PostgresDesk(self._queue)

    async def on_lost(self) -> None:
        if self._queue is not None:
            await self._queue.expire()
        if self._where.embedded:
            await in_thread("embedded", lambda: embedded.start(self._settings.state_dir))

    def close(self) -> None:
        default_queue.set_default(None)
        if self._queue is not None:
            self._queue.terminate()
