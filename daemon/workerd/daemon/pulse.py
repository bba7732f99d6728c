"""The pulse: what the main loop does once a second."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING

from workerd.daemon import crash_dump, parent

if TYPE_CHECKING:
    from workerd.config import Settings
    from workerd.daemon.departure import Departure
    from workerd.daemon.link import Link
    from workerd.daemon.notify import Supervisor
    from workerd.daemon.reload import Reload
    from workerd.daemon.status import Status
    from workerd.daemon.watchdog import Watchdog

PULSE = 1.0  # seconds
EXTENSION = 30.0  # seconds for which one pulse asks the supervisor not to lose patience with our start or stop

log = logging.getLogger(__name__)


class Pulse:
    """Looks after the connection, the loops, the parent and wear, and tells the supervisor how it goes."""

    def __init__(
        self,
        settings: Settings,
        status: Status,
        supervisor: Supervisor,
        link: Link,
        watchdog: Watchdog,
        reload: Reload,
        departure: Departure,
    ) -> None:
        self._status = status
        self._supervisor = supervisor
        self._link = link
        self._watchdog = watchdog
        self._reload = reload
        self._departure = departure
        self._every = min(PULSE, supervisor.watchdog_interval or PULSE)
        self.adopt(settings)

    def adopt(self, settings: Settings) -> None:
        """Take in how often the daemon's own figures are to be logged."""
        self._monitor = settings.monitor
        self._monitor_at = monotonic() + (settings.monitor or 0.0)

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            self._beat()

    def _beat(self) -> None:
        self._link.watch()
        self._watchdog.look()
        crash_dump.follow()
        if parent.is_gone():
            log.error("the parent process was killed: what runs is given back")
            self._departure.hurry()
        self._reload.renew()
        if self._departure.asked.is_set():
            self._supervisor.extend(EXTENSION)
        if self._supervisor.watchdog_interval is not None and not self._status.stuck:
            self._supervisor.alive()
        self._supervisor.status(self._status.line())
        if self._monitor is not None and monotonic() >= self._monitor_at:
            self._monitor_at = monotonic() + self._monitor
            megabytes = self._status.report()["rss_bytes"] // 1_000_000
            log.info("%s, %s MB, loop lag %.1f ms", self._status.line(), megabytes, self._status.loop_lag * 1000)
