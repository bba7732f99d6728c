"""The prelude: what comes before the start of a job that was asked for something that few are."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from workerd.outcomes import Expired

if TYPE_CHECKING:
    from workerd.daemon.run import Run
    from workerd.daemon.transport.base import Desk


class Prelude:
    """A job does not start past its deadline, its key may be free from now on, and it is told what its parents came to."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def play(self, run: Run) -> None:
        """Raises Expired, DatabaseError."""
        claimed = run.claimed
        options = claimed.options or {}
        if claimed.start_by is not None and monotonic() > claimed.start_by:
            raise Expired("its deadline had passed before it could start")
        if claimed.key is not None and options.get("key_until") == "started":
            await self._desk.free_key(claimed)
        if run.job is not None and "after" in options:
            run.job.parents = await self._desk.parents(claimed)
