"""The link: the claimer's session, replaced whenever it is lost, and given up when it has died in silence."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

from workerd.aio import Backoff
from workerd.error_text import message_of
from workerd.errors import DatabaseError
from workerd.queue.database import COMMAND_TIMEOUT, CONNECTION_ERRORS, state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workerd.daemon.counters import Counters
    from workerd.daemon.transport.base import Session, Transport

PATIENCE = 2.0  # seconds without an answer after which the server is asked what has become of the query
BACKOFF_MOST = 2.0  # seconds between two tries: work goes on within 5 s of the database's return
BACKOFF_REFUSED = 30.0  # seconds, where the password is refused: servers lock out whoever tries too often

log = logging.getLogger(__name__)


class Link:
    """Has one session at a time. `on_state(state, host, reason)` tells `status`; `on_lost` may bring the server back."""

    def __init__(
        self,
        transport: Transport,
        on_state: Callable[[str, str | None, str | None], None],
        on_lost: Callable[[], Awaitable[None]],
        counters: Counters,
    ) -> None:
        self._transport = transport
        self._counters = counters
        self._on_state = on_state
        self._on_lost = on_lost
        self._session: Session | None = None
        self._backoff = Backoff(BACKOFF_MOST)
        self._doubt: asyncio.Task[None] | None = None
        self.asked_at = math.inf  # since when the answer of the database is awaited (monotonic)
        self.rests_until = math.inf  # when whoever is served here has to ask again at the latest (monotonic)
        self.ready = asyncio.Event()  # set while the database answers

    async def keep(
        self, first: Session, serve: Callable[[Session], Awaitable[None]], finished: Callable[[], bool]
    ) -> None:
        """Let `serve` work on a session, and on a new one after each loss, until `finished`."""
        session = first
        while not finished():
            try:
                if session.is_closed:
                    session = await self._transport.session()
                    self._counters.reconnects += 1
                self._session, self.asked_at = session, monotonic()
                try:
                    await serve(session)
                finally:
                    self.ready.clear()
                    self._session, self.asked_at = None, math.inf
                    session.terminate()
            except (DatabaseError, *CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                await self._recover(error)

    def answered(self) -> bool:
        """The database did what it was asked; whether this has to be told: see `welcome`."""
        self.asked_at = math.inf
        self._backoff.reset()
        return not self.ready.is_set()

    async def welcome(self, session: Session) -> None:
        """Tell that the database is there, or there again."""
        self._on_state("connected", await session.host(), None)
        self.ready.set()

    def watch(self) -> None:
        """Look into the matter when the database has not answered for long; to be called about once a second."""
        if self._session is None or monotonic() - self.asked_at < PATIENCE:
            return
        if self._doubt is None or self._doubt.done():
            self._doubt = asyncio.create_task(self._examine(self._session), name="examine")

    async def _examine(self, session: Session) -> None:
        """Give the session up when the server, asked by another one, does not work on what it was asked."""
        asked_at = self.asked_at
        try:
            stranded = await self._transport.is_stranded(session)
        except (DatabaseError, *CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            if self.asked_at == asked_at:  # neither of the two is answered
                self.ready.clear()
                self._on_state(state_of(error), None, f"no answer: {message_of(error)}")
            return
        if self.asked_at != asked_at:
            return
        if stranded or monotonic() - asked_at > COMMAND_TIMEOUT:
            log.warning("database: the answer has been lost on its way, or takes too long: the connection is replaced")
            session.terminate()

    async def _recover(self, error: BaseException) -> None:
        state = state_of(error)
        self._on_state(state, None, message_of(error))
        pause = self._backoff.next(BACKOFF_REFUSED if state == "refused" else BACKOFF_MOST)
        log.warning("database: %s; again in %.1f s", message_of(error), pause)
        await asyncio.sleep(pause * random.uniform(0.75, 1.25))
        try:
            await self._on_lost()
        except DatabaseError as trouble:
            log.error("%s", trouble)  # noqa: TRY400 - its text says it all
