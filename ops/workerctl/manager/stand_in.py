"""The stand-in: a worker node of the manager's own, while no other one lives."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import DEVNULL, Process
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

from workerd.errors import DatabaseError
from workerd.queue import fleet
from workerd.queue.database import CONNECTION_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.queue.client import Queue

ROUND = 1.0  # seconds between two looks
KILL_AFTER = 60.0  # seconds for it to drain when the manager stops

log = logging.getLogger(__name__)


class StandIn:
    """Starts `workerd` when for `patience` seconds no node but that one lives, and lets it drain when another one does."""

    def __init__(self, queue: Queue, name: str, flags: Sequence[str], patience: float) -> None:
        """`name`: of the node; `flags`: the settings of the manager, as they were given to it."""
        self._queue = queue
        self._name = name
        self._flags = [*flags, "--name=stand-in", f"--node-name={name}", "--manager-url="]
        self._patience = patience
        self._alone_since = monotonic()
        self._process: Process | None = None

    async def run(self) -> None:
        """Look until cancelled; then it drains and ends."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(ROUND)
        finally:
            await asyncio.shield(self._end())

    async def _look(self) -> None:
        try:
            async with self._queue.connection() as connection:
                others = await fleet.any_living(connection, self._name)
        except (DatabaseError, *CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            log.warning("nodes: %s", str(error) or type(error).__name__)
            self._alone_since = monotonic()  # nobody could be seen
            return
        running = self._process is not None and self._process.returncode is None
        if others:
            self._alone_since = monotonic()
            if running:
                log.info("another node lives: the stand-in drains")
                await self._end()
        elif not running and monotonic() - self._alone_since >= self._patience:
            log.warning("no node has lived for %g s: a stand-in starts", self._patience)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "workerd", *self._flags, stdin=DEVNULL
            )

    async def _end(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), KILL_AFTER)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
