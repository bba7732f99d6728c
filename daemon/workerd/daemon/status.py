"""What the daemon tells about itself."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import psutil

from workerd import __version__

if TYPE_CHECKING:
    from workerd.config import Settings
    from workerd.daemon.holdings import Holdings
    from workerd.daemon.loop_watch import LoopWatch
    from workerd.daemon.workers import Workers
    from workerd.queue.node import Figures

State = Literal["starting", "running", "reloading", "draining", "stopped"]


class Status:
    """The state of the daemon and of its connection; `report` is what `status --json` prints."""

    def __init__(
        self,
        settings: Settings,
        place: str,
        holdings: Holdings,
        workers: Workers,
        figures: Figures,
        loop_watch: LoopWatch,
    ) -> None:
        self._settings = settings
        self._where = place
        self._holdings = holdings
        self._workers = workers
        self._figures = figures
        self._loop_watch = loop_watch
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only starts the measurement
        self._started = monotonic()
        self._started_at = datetime.now(UTC)
        self._connection_since = datetime.now(UTC)  # for people; how long that is, by the clock that nobody sets:
        self._connection_changed = monotonic()
        self.state: State = "starting"
        self.connection = "connecting"
        self._reason: str | None = None
        self.stuck: list[str] = []  # the parts that do not turn any more
        self.metrics: str | None = None  # their address

    def connection_is(self, state: str, host: str | None = None, reason: str | None = None) -> None:
        """`host`: the one in use, where it is known; `reason`: what is wrong, one line."""
        self._where = host or self._where
        self._reason = reason
        if state != self.connection:
            self.connection = state
            self._connection_since = datetime.now(UTC)
            self._connection_changed = monotonic()

    @property
    def loop_lag(self) -> float:
        """Seconds that the main loop takes to come to what is new."""
        return self._loop_watch.lag

    def report(self) -> dict[str, Any]:
        with self._process.oneshot():
            rss, cpu = self._process.memory_info().rss, self._process.cpu_percent()
            threads, files = self._process.num_threads(), self._process.num_fds()
        return {
            "name": self._settings.name,
            "runtime": "local",
            "state": self.state,
            "stuck": self.stuck,
            "pid": os.getpid(),
            "node": self._settings.node,
            "node_id": str(self._holdings.node),  # as text: JavaScript's numbers have 53 bits
            "version": __version__,
            "started_at": self._started_at.isoformat(timespec="milliseconds"),
            "uptime_s": round(monotonic() - self._started, 3),
            "app_dir": str(self._settings.app_dir.absolute()),
            "tasks": list(self._settings.tasks),
            "workers": self._figures.workers,
            "busy": self._figures.busy,
            "jobs_done": self._figures.done,
            "jobs_failed": self._figures.failed,
            "jobs_lost": self._figures.lost,
            "children": self._workers.children,
            "written_off": self._workers.written_off,
            "rss_bytes": rss,
            "cpu_percent": cpu,
            "threads": threads,
            "open_files": files,
            "asyncio_tasks": len(asyncio.all_tasks()),
            "loop_lag_ms": round(self.loop_lag * 1000, 3),
            "database": {
                "state": self.connection,
                "host": self._where,
                "since": self._connection_since.isoformat(timespec="milliseconds"),
                "reason": self._reason,
            },
            "metrics": self.metrics,
            "slots": self._workers.describe(),
        }

    def line(self) -> str:
        """One line for systemd's status and the log."""
        figures = self._figures
        parts = [
            f"{figures.workers} workers",
            f"{figures.busy} busy",
            f"{figures.done:,} done",
            f"{figures.failed:,} failed",
        ]
        if self._workers.written_off:
            parts.append(f"{self._workers.written_off} written off")
        if self.connection != "connected":
            parts.append(f"database {self.connection} since {monotonic() - self._connection_changed:.0f} s")
        if self.state in ("draining", "reloading"):
            parts.append(self.state)
        if self.stuck:
            parts.append(f"no turn any more: {', '.join(self.stuck)}")
        return ", ".join(parts)
