"""The hand-over, seen from both sides: a new process takes the place of this one without a moment in which nobody claims.

The old process starts the new one with one end of a channel, over which it passes the locked PID file. The new one says `ready` when it
claims; the old one says `go`, drains, and leaves when its jobs have ended. Until `go` the old one is in charge, whatever the new one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerd.daemon.channel import Channel
from workerd.daemon.children.process import NOT_INHERITED
from workerd.daemon.parent import SUCCEEDS
from workerd.errors import HandoverFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workerd.config import Configuration, Settings

START_LIMIT = 120.0  # seconds that a new process may take to claim
SUPERVISED = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY", "PWD"}
)  # of a service's main process
TAKE_LIMIT = 5.0  # seconds that it may take to be in charge then

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Launch:
    """How this process was started, to start another one in the same way; `load` reads the settings anew."""

    arguments: Sequence[str]
    load: Callable[[], Configuration]
    environment: dict[str, str]
    directory: Path = field(default_factory=lambda: _working_directory())

    def renewed(self, environment: dict[str, str]) -> Launch:
        """The same with the environment that our supervisor gives its processes now; what concerns this very process stays."""
        ours = {name: value for name, value in self.environment.items() if name in SUPERVISED}
        theirs = {name: value for name, value in environment.items() if name not in NOT_INHERITED}
        return replace(self, environment={**theirs, **ours})

    def run(self, end: int) -> subprocess.Popen[bytes]:
        """Start a process that inherits this file descriptor."""
        environment = {**self.environment, SUCCEEDS: str(end)}
        return subprocess.Popen(
            [sys.executable, "-m", "workerd", *self.arguments],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=[end],
        )


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
            process = await asyncio.to_thread(launch.run, end.fileno())
        successor = cls(channel)
        try:
            async with asyncio.timeout(START_LIMIT):
                # It leaves our family at once, for its supervisor is to be its parent.
                await asyncio.to_thread(process.wait)
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
        heard = channel.receive_now(START_LIMIT)
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


def _working_directory() -> Path:
    """Where we were started, by the name that was given: a link may lead to another release by now."""
    named = Path(os.environ.get("PWD", ""))
    here = Path.cwd()
    return named if named.is_absolute() and named.exists() and named.samefile(here) else here
