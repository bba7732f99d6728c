"""The bell: hears the database's notifications once, for all nodes and pages of this manager."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

import asyncpg

from workerd.errors import DatabaseError
from workerd.queue import asleep
from workerd.queue.database import CONNECTION_ERRORS, connect

if TYPE_CHECKING:
    from workerd.queue.database import Connection

KEPT = 1000  # notices for those who ask late
RESTS = 60.0  # seconds after which a node that has fallen asleep, and not asked again, counts as gone
BACKOFF = 0.5  # seconds between two tries to connect

log = logging.getLogger(__name__)


class Bell:
    """Notices have numbers; a cursor is the number of the last one heard, within a life of the connection."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._epoch = ""
        self._number = 0
        self._notices: deque[tuple[int, str]] = deque(maxlen=KEPT)
        self._rung = asyncio.Condition()
        self._resting: dict[int, float] = {}  # nodes, each since when (monotonic)
        self._asleep = False
        self._turn = asyncio.Lock()
        self._connection: Connection | None = None
        self.closed = False

    async def run(self) -> None:
        """Listen until cancelled, on one connection after the other."""
        while True:
            try:
                self._connection = await connect(self._dsn, "worker manager bell")
                await self._serve(self._connection)
            except (DatabaseError, *CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                log.warning("notifications: %s; again in %.1f s", str(error) or type(error).__name__, BACKOFF)
                await asyncio.sleep(BACKOFF)
            finally:
                if self._connection is not None:
                    self._connection.terminate()
                self._connection, self._asleep = None, False

    async def rest(self, node: int) -> None:
        """Called before a node looks for jobs in order to sleep when there are none: what comes from now on is told."""
        self._resting[node] = monotonic()
        async with self._turn:
            if self._connection is not None and not self._asleep:
                with contextlib.suppress(*CONNECTION_ERRORS, asyncpg.PostgresError):  # a poll finds the jobs then
                    await asleep.sleep(self._connection)
                    self._asleep = True

    async def rise(self, node: int) -> None:
        """The node has something to do."""
        self._resting.pop(node, None)
        await self._rise_unless_needed()

    async def wait(self, cursor: str, patience: float) -> tuple[str, list[str]]:
        """The cursor and the notices since `cursor`, as soon as there are any; `look` when some may have been missed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience), self._rung:
                await self._rung.wait_for(lambda: self.closed or self.cursor != cursor)
        return self.cursor, self._since(cursor)

    async def close(self) -> None:
        """Let nobody wait any more."""
        self.closed = True
        async with self._rung:
            self._rung.notify_all()

    async def _serve(self, connection: Connection) -> None:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener("workerd", self._notified)
        self._epoch = secrets.token_hex(4)
        self._notices.clear()
        await self._ring()
        while not lost.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), RESTS)
            gone = monotonic() - RESTS
            self._resting = {node: at for node, at in self._resting.items() if at > gone}
            await self._rise_unless_needed()
        raise ConnectionError("the connection was closed")

    async def _rise_unless_needed(self) -> None:
        async with self._turn:
            if self._asleep and not self._resting and self._connection is not None:
                with contextlib.suppress(*CONNECTION_ERRORS, asyncpg.PostgresError):  # the locks go with the session
                    await asleep.rise(self._connection)
                self._asleep = False

    @property
    def cursor(self) -> str:
        return f"{self._epoch}-{self._number}"

    def _since(self, cursor: str) -> list[str]:
        epoch, _, number = cursor.partition("-")
        if cursor == self.cursor:
            return []
        oldest = self._notices[0][0] if self._notices else self._number + 1
        if epoch != self._epoch or not number.isdigit() or int(number) < oldest - 1:
            return ["look"]
        return list(dict.fromkeys(text for at, text in self._notices if at > int(number)))

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        text = str(payload)
        if text == "admit":  # meant for who leads
            return
        self._number += 1
        self._notices.append((self._number, text))
        if text == "ready":
            self._resting.clear()  # all of them are told, and look
            self._later = asyncio.get_running_loop().create_task(self._rise_unless_needed())
        self._ringing = asyncio.get_running_loop().create_task(self._ring())

    async def _ring(self) -> None:
        async with self._rung:
            self._rung.notify_all()
