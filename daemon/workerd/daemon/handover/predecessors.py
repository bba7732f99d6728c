"""The predecessors, seen by the process that took their place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.daemon.handover.channel import Channel


class Predecessors:
    """Processes whose place was taken, and who drain."""

    def __init__(self, channels: Sequence[Channel] = ()) -> None:
        self._channels = list(channels)
        self._watchers: list[asyncio.Task[None]] = []

    def watch(self) -> None:
        """Begin to notice when they have gone."""
        self._watchers = [asyncio.create_task(self._gone(channel), name="predecessor") for channel in self._channels]

    @property
    def fds(self) -> list[int]:
        """What the next process needs to know them too."""
        return [channel.fileno() for channel in self._channels]

    def __len__(self) -> int:
        return len(self._channels)

    def order(self, **order: Any) -> None:
        """Tell them all."""
        for channel in self._channels:
            channel.send(order)

    async def wait(self, timeout: float) -> None:
        """Wait until they have gone, for `timeout` seconds at most."""
        if self._watchers:
            await asyncio.wait(self._watchers, timeout=timeout)

    def release(self) -> None:
        """They are the next process's to watch."""
        for watcher in self._watchers:
            watcher.cancel()
        self._watchers.clear()
        for channel in self._channels:
            channel.close()
        self._channels.clear()

    async def _gone(self, channel: Channel) -> None:
        while await channel.receive() is not None:
            pass
        if channel in self._channels:
            self._channels.remove(channel)
            channel.close()
