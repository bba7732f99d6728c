"""The surveyor: the leader looks every few seconds what condition the server and the fleet are in, for metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerd.queue.condition import condition

if TYPE_CHECKING:
    from workerd.maintenance.census import Census
    from workerd.queue.database import Connection

ROUND = 5.0  # seconds between two looks


class Surveyor:
    def __init__(self, census: Census) -> None:
        self._census = census

    async def run_once(self, connection: Connection) -> float:
        """Look; returns the seconds until the next time."""
        try:
            self._census.condition = await condition(connection)
        except TimeoutError:
            self._census.condition = None  # what is not known is not told
        return ROUND
