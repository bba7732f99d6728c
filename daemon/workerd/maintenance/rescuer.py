"""The rescuer: declares silent nodes dead and takes their jobs back."""

from __future__ import annotations

import logging
import math
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

from workerd.queue import rescue

if TYPE_CHECKING:
    from datetime import datetime

    from workerd.config import Settings
    from workerd.maintenance.census import Census
    from workerd.queue.database import Connection
    from workerd.queue.rescue import Sight

ROUND = 0.25  # seconds between two looks: a free lock has to be seen free for 1 s

log = logging.getLogger(__name__)


class Suspicions:
    """Since when each node's lock was seen free with the same beat. A new connection starts with none: what it missed proves nothing."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[float, datetime]] = {}
        self.due = math.inf  # when the next one is confirmed, should nothing change

    def confirmed(self, sights: list[Sight], now: float) -> list[Sight]:
        """The nodes to declare dead, `now` being monotonic seconds."""
        still: dict[int, tuple[float, datetime]] = {}
        dead = []
        self.due = math.inf
        for sight in sights:
            if sight.unlocked:
                since, beat = self._since.get(sight.id, (now, sight.beat))
                still[sight.id] = (since, beat) if beat == sight.beat else (now, sight.beat)
            if sight.silent or (sight.id in still and now - still[sight.id][0] >= sight.grace):
                dead.append(sight)
            elif sight.id in still:
                self.due = min(self.due, still[sight.id][0] + sight.grace)
        self._since = still
        return dead


class Rescuer:
    """Runs on the leader's connection; made anew with each."""

    def __init__(self, settings: Settings, census: Census) -> None:
        self._settings = settings
        self._census = census
        self._suspicions = Suspicions()

    async def run_once(self, connection: Connection) -> float:
        """One look and one rescue; returns the seconds until the next."""
        for sight in self._suspicions.confirmed(await rescue.look(connection), monotonic()):
            if await rescue.declare_dead(connection, sight):
                log.warning(
                    "node %s is dead (%s): its jobs are taken back",
                    sight.name,
                    "no heartbeat" if sight.silent else "its connection is gone",
                )
                await _end_sessions(connection, sight)
        rescued = await rescue.rescue(connection, self._settings.max_crashes, self._settings.failure_ttl)
        for job in rescued:
            if job.failed:
                log.error(
                    "job %s (%s) failed: the nodes that ran it died %s times, the last one was %s",
                    job.id,
                    job.task,
                    self._settings.max_crashes,
                    job.node,
                )
        if rescued:
            self._census.rescued += len(rescued)
            log.warning("rescued %s jobs of %s", len(rescued), ", ".join(sorted({job.node for job in rescued})))
        return max(0.01, min(ROUND, self._suspicions.due - monotonic()))


async def _end_sessions(connection: Connection, sight: Sight) -> None:
    """The host of the node may have vanished in the middle of a transaction."""
    try:
        ended = await rescue.end_sessions(connection, sight.id)
    except asyncpg.InsufficientPrivilegeError as error:
        log.warning(
            "sessions of node %s may keep locks until the server notices that they are dead: %s", sight.name, error
        )
        return
    if ended:
        log.warning("ended %s sessions that node %s had left on the server", ended, sight.name)
