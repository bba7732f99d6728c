"""What the daemon says over HTTP; asked from threads, whatever the main loop does."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from workerd.daemon.control import Handler
    from workerd.daemon.status import Status

PATIENCE = 2.0  # seconds that the main loop may take to say how it is


class Answers:
    def __init__(self, collect: Callable[[], CollectorRegistry], health: Handler, status: Status) -> None:
        """To be made on the main loop. `collect` is called at the first question; `health` is that verb of the control socket."""
        self._collect = collect
        self._health = health
        self._status = status
        self._loop = asyncio.get_running_loop()
        self._registry: CollectorRegistry | None = None
        self._collecting = threading.Lock()

    def metrics(self, accept: str) -> tuple[str, bytes]:
        """Content type and text, in the format that the client prefers."""
        from prometheus_client.exposition import choose_encoder

        with self._collecting:
            if self._registry is None:
                self._registry = self._collect()
        encode, kind = choose_encoder(accept)
        return kind, encode(self._registry)

    def health(self) -> dict[str, Any]:
        """`live` and `ready` as the daemon says, or that it says nothing."""
        asked = asyncio.run_coroutine_threadsafe(self._ask(), self._loop)
        try:
            told = asked.result(PATIENCE)
        except TimeoutError:
            asked.cancel()
            told = {"live": False, "ready": False, "reason": f"the loop has not answered for {PATIENCE:.0f} s"}
        return {**told, "state": self._status.state, "database": self._status.connection}

    async def _ask(self) -> dict[str, Any]:
        return await self._health({})
