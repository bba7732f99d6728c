"""The scheduler: enqueues what is due by the schedules in the database."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

from workerd.errors import WorkerdError
from workerd.queue import schedules

if TYPE_CHECKING:
    from workerd.queue.database import Connection

ROUND = 0.5  # seconds at most between two looks
REST = 60.0  # seconds for which one that fails is left alone, so that it does not keep the others from their jobs

# What is the fault of one schedule: its rule, its times, its payload.
UNFIT = (
    WorkerdError,
    asyncpg.DataError,
    asyncpg.RaiseError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    TypeError,
    ArithmeticError,
)

log = logging.getLogger(__name__)


class Scheduler:
    def __init__(self) -> None:
        self._resting: dict[str, float] = {}  # names, and until when (monotonic)

    async def run_once(self, connection: Connection) -> float:
        """Enqueue what is due; returns the seconds until something is."""
        fired = 0
        for row in await self._due(connection):
            try:
                fired += await schedules.fire(connection, row)
            except UNFIT as error:
                self._rest(row["name"], error)
        if fired:
            return 0.0
        soonest = await schedules.soonest(connection)
        return ROUND if soonest is None or soonest <= 0 else min(ROUND, soonest)

    async def _due(self, connection: Connection) -> list[asyncpg.Record]:
        """Those to be served, read one by one where they cannot be read together."""
        now = monotonic()
        self._resting = {name: until for name, until in self._resting.items() if until > now}
        try:
            return await schedules.due(connection, self._resting)
        except (ValueError, OverflowError):
            found = []
            for name in await schedules.due_names(connection, self._resting):
                try:
                    row = await schedules.due_one(connection, name)
                except (ValueError, OverflowError) as error:
                    self._rest(name, error)
                else:
                    found += [row] if row is not None else []
            return found

    def _rest(self, name: str, error: Exception) -> None:
        self._resting[name] = monotonic() + REST
        log.error("schedule %s cannot be served, again in %.0f s: %s", name, REST, error)
