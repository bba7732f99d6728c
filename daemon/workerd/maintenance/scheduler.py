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

log = logging.getLogger(__name__)


class Scheduler:
    def __init__(self) -> None:
        self._resting: dict[str, float] = {}  # names, and until when (monotonic)

    async def run_once(self, connection: Connection) -> float:
        """Enqueue what is due; returns the seconds until something is."""
        fired = 0
        for row in await schedules.due(connection):
            if self._resting.get(row["name"], 0.0) > monotonic():
                continue
            try:
                fired += await schedules.fire(connection, row)
            except (
                WorkerdError,
                asyncpg.DataError,
                asyncpg.RaiseError,
                asyncpg.IntegrityConstraintViolationError,
            ) as error:
                self._resting[row["name"]] = monotonic() + REST
                log.error("schedule %s cannot be served, again in %.0f s: %s", row["name"], REST, error)  # noqa: TRY400 - one line
        if fired:
            return 0.0
        soonest = await schedules.soonest(connection)
        return ROUND if soonest is None or soonest <= 0 else min(ROUND, soonest)
