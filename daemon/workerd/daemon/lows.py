"""Low bounds: where in each lane this node's next claim begins to look.

A bound spares the claim the dead entries of finished jobs. It may pass a job whose transaction commits late or that was given back; rewinds
and sweeps from the beginning find those.
"""

from __future__ import annotations

import math
from time import monotonic
from typing import TYPE_CHECKING

from workerd.queue.claim import BEGINNING

if TYPE_CHECKING:
    from workerd.queue.lane import Lane

SHARE = 50  # a sweep may take one part in so many of the time
LEAST, MOST = 0.02, 1.0  # seconds between two sweeps


class Lows:
    """The bounds of one claimer. A sweep is under way while some lanes are `unswept`: those are looked at from the beginning."""

    def __init__(self) -> None:
        self._lanes: list[Lane] = []
        self._low: dict[int, int] = {}
        self._rewound: dict[int, int] = {}  # while a claim is under way
        self._served: dict[int, float] = {}
        self._unswept: set[int] = set()
        self._sweep_wanted = True
        self._sweep_at = 0.0  # the earliest moment for the next one
        self._swept_at = 0.0
        self._order: list[Lane] = []
        self.swept_empty = False  # the last claim looked at all lanes from the beginning, and found nothing
        self.settled = False  # all is empty, and no transaction is left that could commit a ticket drawn before

    def clear(self) -> None:
        """Forget all bounds: what happened meanwhile was not heard of."""
        self._low.clear()
        self.settled = False
        self._sweep_wanted, self._sweep_at = True, 0.0

    def set_lanes(self, lanes: list[Lane]) -> bool:
        """Take over the lanes to serve; whether there are new ones."""
        fresh = bool({lane.id for lane in lanes} - {lane.id for lane in self._lanes})
        if fresh:
            self._sweep_wanted = True
        self._lanes = lanes
        return fresh

    def want_sweep(self) -> None:
        self._sweep_wanted = True

    @property
    def wants_sweep_at(self) -> float:
        """When the next sweep is to be made (monotonic)."""
        if self._sweep_wanted:
            return self._sweep_at
        return math.inf if self.settled else max(self._sweep_at, self._swept_at + MOST)

    def rewind(self, lane: int, pos: int) -> None:
        """A job has become free at `pos`, behind the bound."""
        self._low[lane] = min(self._low.get(lane, BEGINNING), pos)
        self._rewound[lane] = min(self._rewound.get(lane, pos), pos)

    def targets(self) -> list[tuple[Lane, int]]:
        """The lanes with their bounds for the next claim, the most urgent first and among equals the one served longest ago."""
        now = monotonic()
        if now >= self._sweep_at and (self._sweep_wanted or now >= self._swept_at + MOST):
            self._sweep_wanted = False
            self._sweep_at = now + MOST
            self._unswept = {lane.id for lane in self._lanes}
        self._rewound.clear()
        self._order = self._lanes
        if len(self._lanes) > 1:
            self._order = sorted(self._lanes, key=lambda lane: (-lane.priority, self._served.get(lane.id, 0.0)))
        return [
            (lane, BEGINNING if lane.id in self._unswept else self._low.get(lane.id, BEGINNING)) for lane in self._order
        ]

    def learn(self, lane: Lane | None, last: int, took: float) -> None:
        """Take in the answer of a claim: `last` is the highest ticket looked at in `lane`, None: all were empty; `took` seconds."""
        seen = self._order if lane is None else self._order[: self._order.index(lane) + 1]
        swept = self._unswept.intersection(each.id for each in seen)
        if swept:
            self._unswept -= swept
            self._swept_at = monotonic()
            self._sweep_at = self._swept_at + min(max(took * SHARE, LEAST), MOST)
        self.swept_empty = lane is None and len(swept) == len(self._lanes)
        if lane is not None:
            self._served[lane.id] = monotonic()
            self._low[lane.id] = min(last + 1, self._rewound.get(lane.id, last + 1))
