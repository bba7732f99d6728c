"""Appetite: whether there may be jobs to claim, and from when on to look for them. Nothing depends on notifications."""

from __future__ import annotations

import random
from time import monotonic
from typing import TYPE_CHECKING

from workerd.daemon.lows import Lows

if TYPE_CHECKING:
    from workerd.queue.claim import Answer
    from workerd.queue.lane import Lane

LOCKED_PATIENCE = 0.1  # seconds from a claim that met a locked lane to the next one


class Appetite:
    """What one claimer has heard and learnt of jobs. Times are monotonic."""

    def __init__(self) -> None:
        self.claim_at = 0.0  # no claim before
        self._lows = Lows()
        self._hungry = True  # something said since the last claim that there may be jobs
        self._told = False  # an enqueue has notified us
        self._blocked = False  # the last claim met a job that waits for a free worker
        self._dusk = 0  # the transaction id at which the lanes were found empty; 0: they were not
        self._look_at = 0.0  # when to look for jobs though nothing was heard of any

    def __bool__(self) -> bool:
        return self._hungry

    @property
    def look_at(self) -> float:
        """When to look though nothing is heard meanwhile."""
        return max(min(self._look_at, self._lows.wants_sweep_at), self.claim_at)

    def begin_anew(self) -> None:
        """On another connection: what happened meanwhile was not heard."""
        self._lows.clear()
        self._dusk = 0
        self._hungry = True

    def set_lanes(self, lanes: list[Lane]) -> None:
        """These are there to serve."""
        if self._lows.set_lanes(lanes):
            self._hungry = True

    def rouse(self) -> None:
        """There may be jobs."""
        self._hungry = True

    def rouse_to_sweep(self) -> None:
        """There may be jobs behind the bounds."""
        self._lows.want_sweep()
        self._hungry = True

    def looked(self, poll_interval: float) -> None:
        """It is time to look, and to do so again in about `poll_interval` seconds."""
        self._look_at = monotonic() + poll_interval * random.uniform(0.8, 1.2)
        self.rouse_to_sweep()

    def hear_of_jobs(self) -> None:
        """An enqueue said that it has committed."""
        self._told = True
        self._hungry = True

    def hear_of_rewind(self, lane: int, pos: int) -> None:
        """A job has become free at `pos` of the lane."""
        self._lows.rewind(lane, pos)
        self._hungry = True

    def worker_is_free(self) -> None:
        """A job that waits for one may be claimed."""
        if self._blocked:
            self._hungry = True

    def begin(self) -> tuple[list[tuple[Lane, int]], bool]:
        """A claim begins: the lanes to look at, each from its bound, and whether an enqueue has told us. What is heard
        from now on counts for the next one."""
        told, self._told = self._told, False
        self._hungry = False
        return self._lows.targets(), told

    def learn(self, answer: Answer, took: float, *, free: bool, told: bool) -> None:
        """The claim, of `took` seconds, was answered. `free`: there was a worker to start a job at once."""
        self._lows.learn(answer.lane, answer.last, took)
        self._blocked = answer.lane is not None and not answer.jobs and not free
        if answer.lane is not None and not self._blocked:
            self._hungry = True
        self._dusk = 0 if answer.lane else self._dusk or answer.next_xid
        self._lows.settled = self._lows.swept_empty and answer.oldest_xid >= self._dusk
        if told and not answer.jobs:
            self._lows.want_sweep()  # what was announced is behind the bounds: its transaction committed late

    def dead(self) -> None:
        """Nothing may be claimed until the node is born anew."""
        self._forget_dusk()
        self._hungry = False

    def locked(self) -> None:
        """A lane stays locked by another session."""
        self._forget_dusk()
        self._hungry = True
        self.claim_at = monotonic() + LOCKED_PATIENCE

    def _forget_dusk(self) -> None:
        """The claim wrote nothing, but has ended our sleep."""
        self._dusk, self._lows.settled = 0, False
