"""The watchdog: whether the daemon's own loops turn. A handler may take its time, and so may the database: neither means that we hang."""

from __future__ import annotations

import logging
import math
from time import monotonic
from typing import TYPE_CHECKING

from workerd.queue.database import COMMAND_TIMEOUT

if TYPE_CHECKING:
    from workerd.daemon.backlog import Backlog
    from workerd.daemon.finisher import Finisher
    from workerd.daemon.link import Link
    from workerd.daemon.loop_watch import LoopWatch
    from workerd.daemon.status import Status
    from workerd.daemon.workers import Workers

GRACE = 10.0  # seconds by which a part may be late

log = logging.getLogger(__name__)


class Watchdog:
    """Reads the stamps that claim loop, workers, finisher and lease thread leave at each turn; tells `status` which do not turn any more.

    To be asked to look about once a second. A part counts as stuck when two looks in a row say so: after a while in which the
    whole loop stood still all stamps are old at first.
    """

    def __init__(
        self, link: Link, backlog: Backlog, workers: Workers, finisher: Finisher, loop_watch: LoopWatch, status: Status
    ) -> None:
        self._link = link
        self._backlog = backlog
        self._workers = workers
        self._finisher = finisher
        self._loop_watch = loop_watch
        self._status = status
        self._taken = 0  # jobs that the workers had taken at the last look
        self._suspects: set[str] = set()

    def look(self) -> None:
        """Look at the stamps."""
        checks = {
            "claim loop": self._claim_loop_is_late(),
            "workers": self._workers_are_missing(),
            "finisher": self._finisher_is_late(),
            "lease thread": monotonic() > self._loop_watch.looked_at + GRACE,
        }
        suspects = {part for part, suspect in checks.items() if suspect}
        stuck = sorted(suspects & self._suspects)
        self._suspects = suspects
        if stuck and stuck != self._status.stuck:
            log.error("%s: no turn any more; SIGUSR1 writes all stacks to the log", ", ".join(stuck))
        self._status.stuck = stuck

    def _claim_loop_is_late(self) -> bool:
        if not self._link.ready.is_set():  # it waits for a connection
            return False
        if math.isfinite(self._link.asked_at):  # for an answer, which is given up after a while
            return monotonic() > self._link.asked_at + COMMAND_TIMEOUT + GRACE
        return monotonic() > self._link.rests_until + GRACE

    def _workers_are_missing(self) -> bool:
        """Each one without a job has to wait for one; while others take jobs, some are on their way."""
        taken, self._taken = self._taken, self._backlog.taken
        return self._workers.idle > self._backlog.waiting and taken == self._taken

    def _finisher_is_late(self) -> bool:
        now = monotonic()
        if not self._link.ready.is_set() or now > self._link.asked_at + GRACE:  # a slow answer is not its fault
            return False
        return len(self._finisher) > 0 and now > max(self._finisher.due_at, self._finisher.taken_at) + GRACE
