"""The inheritance: what a new process has from the one whose place it takes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from workerd.daemon.handover.channel import Channel
from workerd.daemon.parent import SUCCEEDS

if TYPE_CHECKING:
    from workerd.config import Settings

STATE_LIMIT = 120.0  # seconds for the predecessor's first message; it sends it before it starts us


class Inheritance:
    """What a new process has from the one whose place it takes."""

    def __init__(
        self, channel: Channel, state: dict[str, Any], pid_file: int, listener: int | None, others: list[Channel]
    ) -> None:
        self._channel = channel
        self.state = state
        self.pid_file = pid_file  # the file descriptor that holds its lock
        self.listener = listener  # the file descriptor of the socket of the metrics
        self.predecessors = [*others, channel]  # all that may still drain

    @classmethod
    def receive(cls) -> Inheritance | None:
        """The inheritance of a process that was started by another one's hand-over; None for any other. Call it first of all."""
        given = os.environ.pop(SUCCEEDS, "")
        if not given:
            return None
        if os.fork():  # leave the family of the predecessor: who supervises it is told when we end
            os._exit(0)
        os.environ["WATCHDOG_PID"] = str(os.getpid())
        channel = Channel.of(int(given))
        channel.send({"pid": os.getpid()})
        heard = channel.receive_now(STATE_LIMIT)
        if heard is None:
            sys.exit("workerd: the process that started this one has gone")
        state, (pid_file, *others) = heard
        listener = None if state.get("listener") is None else others.pop(0)
        return cls(channel, state, pid_file, listener, [Channel.of(fd) for fd in others])

    def workers(self, settings: Settings) -> int:
        """How many to begin with: as many as the predecessor was scaled to, unless the setting is another one now."""
        return settings.workers if settings.workers != self.state["configured"] else int(self.state["workers"])

    def failed(self, reason: str) -> None:
        self._channel.send({"failed": reason[:4000]})

    def taken(self) -> None:
        """Say that PID file and control socket are ours."""
        self._channel.send({"taken": True})

    async def take_over(self) -> bool:
        """Say that we claim; whether we are in charge now (also when the predecessor has died meanwhile), else we are not wanted."""
        self._channel.send({"ready": True})
        heard = await self._channel.receive()
        return heard is None or "go" in heard[0]
