"""The successor, seen by the process whose place it is to take."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

from workerd.daemon.handover.channel import Channel
from workerd.daemon.threads import in_thread
from workerd.errors import HandoverFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.daemon.handover.launch import Launch

START_LIMIT = 120.0  # seconds that a new process may take to claim
TAKE_LIMIT = 5.0  # seconds that it may take to be in charge then


class Successor:
    """The process that is to take our place."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.pid = 0

    @classmethod
    async def start(cls, launch: Launch, state: dict[str, Any], fds: Sequence[int]) -> Successor:
        """Start it and return when it claims. Raises HandoverFailed with its reason; then it has gone."""
        channel, end = Channel.pair()
        channel.send(state, fds)  # at once: those who drain may go meanwhile, and close theirs
        with end:
            process = await in_thread("launch", lambda: launch.run(end.fileno()))
        successor = cls(channel)
        try:
            async with asyncio.timeout(START_LIMIT):
                # It leaves our family at once, for its supervisor is to be its parent.
                await in_thread("launch", process.wait)
                await successor._ready()
        except TimeoutError:
            successor.dismiss()
            raise HandoverFailed(f"the new process was not ready after {START_LIMIT:.0f} s and was ended") from None
        except HandoverFailed:  # it ends by itself; its number may be somebody else's by now
            channel.close()
            raise
        except BaseException:
            successor.dismiss()
            raise
        return successor

    async def _ready(self) -> None:
        while (heard := await self._channel.receive()) is not None:
            match heard[0]:
                case {"pid": int(pid)}:
                    self.pid = pid
                case {"ready": True}:
                    return
                case {"failed": str(reason)}:
                    raise HandoverFailed(f"the new process did not start: {reason}")
        raise HandoverFailed("the new process ended before it was ready (the log may tell why)")

    def dismiss(self) -> None:
        """End it: it is not to take our place."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._channel.close()

    def stop(self) -> None:
        """It is not wanted any more: it drains and leaves."""
        self._channel.send({"stop": True})

    def go(self) -> None:
        """It shall be in charge."""
        self._channel.send({"go": True})

    async def in_charge(self) -> None:
        """Returns when PID file and control socket are its own."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKE_LIMIT):
                await self._channel.receive()

    async def orders(self) -> dict[str, Any] | None:
        """Its next word to us, who drain; None when it has gone."""
        heard = await self._channel.receive()
        return None if heard is None else heard[0]
