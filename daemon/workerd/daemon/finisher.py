"""Ended attempts on their way to the database, and the figures that they leave."""

from __future__ import annotations

import logging
import math
from time import monotonic
from typing import TYPE_CHECKING

from workerd.queue.finish import is_good
from workerd.queue.tally import Tally, bucket

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from workerd.config import Settings
    from workerd.outcomes import Ending
    from workerd.queue.finish import Finished
    from workerd.queue.lane import Lane
    from workerd.queue.node import Figures

BATCH = 500
PATIENCE = 0.005  # seconds that an end may wait for others while further jobs are at hand
QUIET_RATE = 100  # jobs a second up to which each finished job has its line in the log
SLOW = 1.0  # seconds: a job that ran longer is logged at any rate

log = logging.getLogger("workerd.jobs")


class Finisher:
    """Collects outcomes; the claimer's connection writes them in batches."""

    def __init__(self, settings: Settings, figures: Figures, wake: asyncio.Event) -> None:
        self._pending: list[Finished] = []
        self._figures = figures
        self._wake = wake
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._totals: dict[tuple[str, str], Tally] = {}
        self._last: tuple[str, Lane | None, Tally] = "", None, Tally()  # task and lane of the one counted last
        self._which = settings.log_jobs
        self._oldest = 0.0  # monotonic
        self.taken_at = 0.0  # when something was taken last, to be written (monotonic)
        self.tell: Callable[[Finished, Ending], None] | None = None  # those who listen
        self._second = (0, 0)  # the current second and how many finished in it

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, ended: Finished) -> None:
        self._pending.append(ended)
        count = len(self._pending)
        if count == 1:
            self._oldest = monotonic()
        if count == 1 or count == BATCH // 2:
            self._wake.set()

    @property
    def due_at(self) -> float:
        """When what is pending has to be written (monotonic): at once when it fills half a batch, else soon."""
        return 0.0 if len(self._pending) >= BATCH // 2 else self._oldest + PATIENCE

    def forget(self, node: int) -> None:
        """Drop what belongs to a node id that was declared dead: the database would drop it as well."""
        mine = [end for end in self._pending if end.job.node == node]
        self._pending = [end for end in self._pending if end.job.node != node]
        self._figures.lost += len(mine)

    def take(self, *, good: bool) -> list[Finished]:
        """Remove and return a batch: of successes that `cycle` can write, or of everything else."""
        if not self._pending:
            return []
        batch = [end for end in self._pending if is_good(end) is good][:BATCH]
        if batch:
            self.taken_at = monotonic()
        if len(batch) == len(self._pending):
            self._pending = []
        elif batch:
            taken = set(batch)
            self._pending = [end for end in self._pending if end not in taken]
        return batch

    def restore(self, batch: list[Finished]) -> None:
        """Put back what could not be written: nothing is lost, and writing it twice changes nothing."""
        self._pending = batch + self._pending

    def settle(self, batch: list[Finished], held: list[bool]) -> None:
        """Count a batch that was written; `held` tells for each whether its lease still held it."""
        slow, tell = self._logged_from(len(batch)), self.tell
        for end, mine in zip(batch, held, strict=True):
            if not mine and not end.committed:
                self._lost(end)
                continue
            ending: Ending = end.outcome.ending if mine else "succeeded"
            self._count(end, ending)
            if end.ran >= slow or ending in ("failed", "retry"):
                self._log(end, ending)
            if tell is not None:
                tell(end, ending)

    @property
    def has_tallies(self) -> bool:
        return bool(self._tallies)

    def take_tallies(self) -> dict[tuple[str, str], Tally]:
        """The counters since the last call; give them back with `restore_tallies` when they could not be written."""
        taken, self._tallies = self._tallies, {}
        self._last = "", None, Tally()
        return taken

    def restore_tallies(self, tallies: dict[tuple[str, str], Tally]) -> None:
        for key, tally in tallies.items():
            self._tallies.setdefault(key, Tally()).merge(tally)

    def add_up(self, tallies: dict[tuple[str, str], Tally]) -> None:
        """Keep the sum of counters that were written, since the start of this process."""
        for key, tally in tallies.items():
            self._totals.setdefault(key, Tally()).merge(tally)

    def totals(self) -> list[tuple[tuple[str, str], Tally]]:
        """The sums, by (task, queue); callable from any thread."""
        return list(self._totals.items())

    def _count(self, end: Finished, ending: str) -> None:
        job = end.job
        if job.task == self._last[0] and job.lane is self._last[1]:  # as most do
            tally = self._last[2]
        else:
            tally = self._tallies.setdefault((job.task, job.lane.queue), Tally())
            self._last = job.task, job.lane, tally
        tally.run[bucket(end.ran)] += 1
        tally.seconds += end.ran
        if job.attempt == 1:
            tally.wait[bucket(job.waited)] += 1
            tally.waited += job.waited
        if ending == "succeeded":
            tally.succeeded += 1
            self._figures.done += 1
        elif ending == "failed":
            tally.failed += 1
            self._figures.failed += 1
        elif ending == "cancelled":
            tally.cancelled += 1
        elif ending == "retry":
            tally.retried += 1

    def _lost(self, end: Finished) -> None:
        self._figures.lost += 1
        log.warning(
            "job %s (%s, attempt %s) had been taken back from this node: what this run did is not recorded",
            end.job.id,
            end.job.task,
            end.job.attempt,
            extra={"job": end.job.id, "task": end.job.task},
        )

    def _log(self, end: Finished, ending: str) -> None:
        fields = {
            "job": end.job.id,
            "task": end.job.task,
            "queue": end.job.lane.queue,
            "attempt": end.job.attempt,
            "ending": ending,
            "duration_s": round(end.ran, 4),
        }
        reason = (end.outcome.error or "").splitlines()[0] if end.outcome.error else ""
        if ending == "failed":
            log.error(
                "job %s %s failed for good after %.3f s: %s",
                end.job.id,
                end.job.task,
                end.ran,
                reason,
                extra={**fields, "error": end.outcome.error},
            )
        elif ending == "retry":
            log.warning(
                "job %s %s failed after %.3f s (attempt %s), again in %.1f s: %s",
                end.job.id,
                end.job.task,
                end.ran,
                end.job.attempt,
                end.outcome.delay,
                reason,
                extra={**fields, "error": end.outcome.error},
            )
        else:
            log.info("job %s %s %s in %.3f s", end.job.id, end.job.task, ending, end.ran, extra=fields)

    def _logged_from(self, ends: int) -> float:
        """Seconds from which on an ordinary end is logged: at once below 100 a second, unless LOG_JOBS says otherwise."""
        if self._which is not None:
            return {"all": 0.0, "slow": SLOW, "failures": math.inf}[self._which]
        now = int(monotonic())
        second, count = self._second
        self._second = (now, count + ends if second == now else ends)
        return 0.0 if self._second[1] <= QUIET_RATE else SLOW
