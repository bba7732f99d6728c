"""The departure: when and how fast a daemon leaves, whoever asks for it."""

from __future__ import annotations

import asyncio
import math
from time import monotonic


class Departure:
    """Asked for once; later requests can only hurry it. `deadline` is monotonic: when what still runs is cancelled."""

    def __init__(self, drain_timeout: float, echo: float = 0.0) -> None:
        """`echo`: seconds within which a second signal counts as the first one again."""
        self._echo = echo
        self.drain_timeout = drain_timeout
        self.asked = asyncio.Event()
        self.now = asyncio.Event()
        self.deadline = math.inf
        self._sooner = asyncio.Event()
        self._signalled_at = -math.inf

    @property
    def remaining(self) -> float:
        """Seconds until the deadline."""
        return 0.0 if self.now.is_set() else max(0.0, self.deadline - monotonic())

    def ask(self, timeout: float | None = None) -> None:
        """Leave when nothing runs any more, at the latest after `timeout` seconds (DRAIN_TIMEOUT unless given)."""
        deadline = monotonic() + (self.drain_timeout if timeout is None else timeout)
        if deadline < self.deadline:
            self.deadline = deadline
            self._sooner.set()
        self.asked.set()

    def renew(self) -> None:
        """What runs has DRAIN_TIMEOUT from now on."""
        self.deadline = monotonic() + self.drain_timeout

    def hurry(self) -> None:
        """Leave now: what runs is cancelled and given back."""
        self.now.set()
        self._sooner.set()
        self.asked.set()

    def signal(self) -> None:
        """The first signal drains, the second one ends it now."""
        if monotonic() - self._signalled_at < self._echo:
            return
        again = math.isfinite(self._signalled_at)
        self._signalled_at = monotonic()
        if again:
            self.hurry()
        else:
            self.ask()

    async def or_asked(self, event: asyncio.Event) -> None:
        """Returns when the event is set, or when somebody asks for the departure."""
        waits = [asyncio.ensure_future(each.wait()) for each in (event, self.asked)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def wait(self, quiet: asyncio.Event) -> None:
        """Returns when nothing runs any more, or when there is no time left."""
        waiting = asyncio.ensure_future(quiet.wait())
        try:
            while not quiet.is_set() and self.remaining:
                self._sooner.clear()
                sooner = asyncio.ensure_future(self._sooner.wait())
                await asyncio.wait([waiting, sooner], timeout=self.remaining, return_when=asyncio.FIRST_COMPLETED)
                sooner.cancel()
        finally:
            waiting.cancel()
