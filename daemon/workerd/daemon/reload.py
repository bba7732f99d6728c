"""Reload: new settings in place where that is possible, else by a new process; and a fresh process when this one is worn out."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from time import monotonic
from typing import TYPE_CHECKING, Any

import psutil

from workerd.daemon.handover.successor import Successor
from workerd.daemon.metrics.listener import place_of
from workerd.errors import ConfigError, HandoverFailed, WorkerdError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from workerd.config import Settings
    from workerd.daemon.departure import Departure
    from workerd.daemon.handover.launch import Launch
    from workerd.daemon.handover.predecessors import Predecessors
    from workerd.daemon.notify import Supervisor
    from workerd.daemon.pidfile import PidFile
    from workerd.daemon.status import Status
    from workerd.queue.node import Figures

REST = 60.0  # seconds from a hand-over that failed, or helped nothing, to the next one that nobody asked for

log = logging.getLogger(__name__)


class Reload:
    """`patience`: seconds that the longest job may run; `adopt(settings)` takes in the settings that can change in place."""

    def __init__(
        self,
        launch: Launch,
        pid_file: PidFile,
        predecessors: Predecessors,
        settings: Settings,
        figures: Figures,
        status: Status,
        supervisor: Supervisor,
        departure: Departure,
        patience: float,
        adopt: Callable[[Settings], None],
        listener: socket.socket | None,
    ) -> None:
        self._launch = launch
        self._pid_file = pid_file
        self._predecessors = predecessors
        self._settings = settings
        self._figures = figures
        self._status = status
        self._supervisor = supervisor
        self._departure = departure
        self._patience = patience
        self._adopt = adopt
        self._listens = [] if listener is None else [listener.fileno()]
        self._process = psutil.Process()
        self._fresh = self._process.memory_info().rss  # bytes that a process has which has not worked yet
        self._not_before = 0.0  # monotonic
        self._listener: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self.handed_to: int | None = None  # the process that has our place
        if settings.max_memory is not None and settings.max_memory <= self._fresh:
            log.warning("MAX_MEMORY has no effect: a fresh process has %.0f MB already", self._fresh / 1e6)

    async def hand_over(self, environment: dict[str, str] | None = None) -> int:
        """Start a new process with the code and settings of now, let it take our place and drain; returns its PID.

        `environment`: that of now, where it may have changed since our start.
        Raises HandoverFailed when it did not start; then nothing has changed. ConfigError when this is not the moment.
        """
        if self._status.state != "running":
            raise ConfigError(f"the daemon is {self._status.state}: only a running one can be reloaded")
        self._status.state = "reloading"
        self._supervisor.reloading()
        log.info("reload: starting a new process")
        try:
            successor = await Successor.start(
                self._launch if environment is None else self._launch.renewed(environment),
                {
                    "pid": os.getpid(),
                    "workers": self._figures.workers,
                    "configured": self._settings.workers,
                    "listener": place_of(self._settings),
                },
                [self._pid_file.fileno(), *self._listens, *self._predecessors.fds],
            )
        except HandoverFailed as failure:
            log.error("reload: %s; this process goes on", failure)  # noqa: TRY400 - its text says it all
            self._back()
            raise
        except BaseException:
            self._back()
            raise
        if self._departure.asked.is_set():
            successor.stop()
            raise HandoverFailed("the daemon was told to stop meanwhile")
        await self._give_way(successor)
        return successor.pid

    def _back(self) -> None:
        if not self._departure.asked.is_set():
            self._status.state = "running"
            self._supervisor.ready(self._status.line())

    async def _give_way(self, successor: Successor) -> None:
        log.info("handed over to PID %s: what runs here has %.0f s", successor.pid, self._patience)
        self.handed_to = successor.pid
        self._supervisor.hand_over(successor.pid)
        successor.go()
        self._pid_file.hand_on()
        self._predecessors.release()
        await (
            successor.in_charge()
        )  # before we leave: where nothing runs, that is at once, and whoever asked for the reload wants its answer
        self._departure.ask(self._patience)
        self._listener = asyncio.create_task(self._obey(successor), name="successor")

    async def _obey(self, successor: Successor) -> None:
        """Leave faster when the process that has our place is told to stop, or has died: then whoever supervises it wants to begin anew."""
        while (order := await successor.orders()) is not None:
            match order:
                case {"drain": int(seconds) | float(seconds)}:
                    self._departure.ask(seconds)
                case {"now": True}:
                    self._departure.hurry()
        self._departure.ask()

    async def reconfigure(self) -> None:
        """Apply the settings that changed; hand over when one of them cannot change in place."""
        try:
            settings = self._launch.load().settings
        except WorkerdError as error:
            log.error("settings: %s; the old ones stay", error)  # noqa: TRY400 - its text says it all
            return
        fields = type(settings).model_fields
        changed = {name for name in fields if getattr(settings, name) != getattr(self._settings, name)}
        log.info("settings: %s", f"changed: {', '.join(sorted(changed))}" if changed else "nothing has changed")
        if not all(fields[name].in_place for name in changed):
            await self._try_hand_over()
        elif changed:
            self._settings = settings
            self._adopt(settings)

    def renew(self) -> None:
        """Begin to hand over when the process has had its share of jobs or memory."""
        if self._status.state != "running" or monotonic() < self._not_before:
            return
        reason = self._worn_out()
        if reason is not None:
            log.info("%s: a fresh process takes over", reason)
            self._not_before = math.inf  # until it has, or has failed to
            self._renewing = asyncio.create_task(self._try_hand_over(), name="renew")

    async def _try_hand_over(self) -> None:
        """Hand over where nobody waits for the answer: a failure is in the log."""
        try:
            await self.hand_over()
        except WorkerdError:
            self._not_before = monotonic() + REST

    def _worn_out(self) -> str | None:
        limit, done = self._settings.max_jobs or math.inf, self._figures.done + self._figures.failed
        if done >= limit:
            return f"{done:,} jobs are done (MAX_JOBS is {limit:,})"
        memory = self._settings.max_memory
        if memory is not None and memory > self._fresh and (rss := self._process.memory_info().rss) > memory:
            return f"{rss / 1e6:,.0f} MB are resident (MAX_MEMORY is {memory / 1e6:,.0f} MB)"
        return None

    def state(self) -> dict[str, Any]:
        """For `status`."""
        return {"handed_to": self.handed_to, "predecessors": len(self._predecessors)}
