"""The link: the claimer's connection, replaced whenever it is lost, and given up when it has died in silence."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

from workerd.errors import DatabaseError
from workerd.queue.database import COMMAND_TIMEOUT, CONNECTION_ERRORS, connect, host_in_use, state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workerd.queue.database import Connection

PATIENCE = 2.0  # seconds without an answer after which the server is asked what has become of the query
PATIENCE_CONNECTING = 5.0  # seconds for a try to connect: packets that are dropped are sent again ever more rarely
BACKOFF_MOST = 2.0  # seconds between two tries: work goes on within 5 s of the database's return
BACKOFF_REFUSED = 30.0  # seconds, where the password is refused: servers lock out whoever tries too often

# A session that waits for its client, or is stuck in sending to it, while the client waits for it: the network between them is gone.
_STRANDED = """
    SELECT NOT EXISTS (
        SELECT FROM pg_stat_activity
        WHERE pid = $1 AND application_name = $2 AND state = 'active' AND wait_event IS DISTINCT FROM 'ClientWrite'
    ), (
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE pid = $1 AND application_name = $2 AND (wait_event = 'ClientWrite' OR state <> 'active')
    )
"""

log = logging.getLogger(__name__)


class Link:
    """Has one connection at a time. `on_state(state, host, reason)` tells `status`; `on_lost` may bring the server back."""

    def __init__(
        self, dsn: str, name: str, on_state: Callable[[str, str | None, str | None], None], on_lost: Callable[[], Awaitable[None]]
    ) -> None:  # fmt: skip
        self._dsn = dsn
        self._name = name
        self._on_state = on_state
        self._on_lost = on_lost
        self._connection: Connection | None = None
        self._backoff = 0.0  # seconds until the next try to connect: none after a turn that went well
        self._doubt: asyncio.Task[None] | None = None
        self.asked_at = math.inf  # since when the answer of the database is awaited (monotonic)
        self.rests_until = math.inf  # when whoever is served here has to ask again at the latest (monotonic)
        self.ready = asyncio.Event()  # set while the database answers

    async def keep(
        self, first: Connection, serve: Callable[[Connection], Awaitable[None]], finished: Callable[[], bool]
    ) -> None:
        """Let `serve` work on a connection, and on a new one after each loss, until `finished`."""
        connection = first
        while not finished():
            try:
                if connection.is_closed():
                    connection = await connect(self._dsn, self._name, claims=True, timeout=PATIENCE_CONNECTING)
                self._connection, self.asked_at = connection, monotonic()
                try:
                    await serve(connection)
                finally:
                    self.ready.clear()
                    self._connection, self.asked_at = None, math.inf
                    connection.terminate()
            except (DatabaseError, *CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                await self._recover(error)

    def answered(self) -> bool:
        """The database did what it was asked; whether this has to be told: see `welcome`."""
        self.asked_at = math.inf
        self._backoff = 0.0
        return not self.ready.is_set()

    async def welcome(self, connection: Connection) -> None:
        """Tell that the database is there, or there again."""
        self._on_state("connected", await host_in_use(connection, self._dsn), None)
        self.ready.set()

    def watch(self) -> None:
        """Look into the matter when the database has not answered for long; to be called about once a second."""
        if self._connection is None or monotonic() - self.asked_at < PATIENCE:
            return
        if self._doubt is None or self._doubt.done():
            self._doubt = asyncio.create_task(self._examine(self._connection), name="examine")

    async def _examine(self, connection: Connection) -> None:
        """Give the connection up when the server, asked over another one, does not work on what it was asked."""
        asked_at = self.asked_at
        try:
            stranded = await self._is_stranded(connection.get_server_pid())
        except (DatabaseError, *CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            if self.asked_at == asked_at:  # neither of the two is answered
                self.ready.clear()
                self._on_state(state_of(error), None, f"no answer: {_text(error)}")
            return
        if self.asked_at != asked_at:
            return
        if stranded or monotonic() - asked_at > COMMAND_TIMEOUT:
            log.warning("database: the answer has been lost on its way, or takes too long: the connection is replaced")
            connection.terminate()

    async def _is_stranded(self, pid: int) -> bool:
        other = await connect(self._dsn, f"{self._name} examiner", timeout=PATIENCE_CONNECTING)
        try:
            row = await other.fetchrow(_STRANDED, pid, self._name, timeout=PATIENCE_CONNECTING)
            assert row is not None
            return bool(row[0])
        finally:
            other.terminate()

    async def _recover(self, error: BaseException) -> None:
        state = state_of(error)
        self._on_state(state, None, _text(error))
        log.warning("database: %s; again in %.1f s", _text(error), self._backoff)
        await asyncio.sleep(self._backoff * random.uniform(0.75, 1.25))
        self._backoff = min(max(self._backoff * 2, 0.1), BACKOFF_REFUSED if state == "refused" else BACKOFF_MOST)
        try:
            await self._on_lost()
        except DatabaseError as trouble:
            log.error("%s", trouble)  # noqa: TRY400 - its text says it all


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
