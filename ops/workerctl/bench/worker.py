"""A process that works: what is asked of it, whichever system it belongs to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from workerctl.bench.process import Process


class Worker(Process, ABC):
    """Told in this order; moments are seconds of the monotonic clock."""

    @abstractmethod
    async def begin(self) -> float:
        """Let it begin; returns when it did: everything imported, nothing connected."""

    @abstractmethod
    async def ready(self) -> float:
        """When it would hear of a new job."""

    async def first(self) -> float:
        """When its first job ran."""
        at: float = (await self.hear("first"))["at"]
        return at

    @abstractmethod
    async def stop(self) -> dict[str, Any]:
        """Let it finish what it runs: `runs`, how many jobs ran, and `starts`, when those with a number did."""
