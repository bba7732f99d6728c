"""When a failed job runs again: a pure function of the number of failures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from workerd.errors import TaskError
from workerd.units import Duration, parse_duration

Interval = Duration | Sequence[Duration]


@dataclass(frozen=True)
class Retry:
    """`max` retries after the first attempt (None: the setting MAX_RETRIES).

    `interval` is the wait before a retry: one duration (fixed), or a list whose last entry repeats; None: RETRY_DELAY with
    `factor` 2. With `factor` above 1 the wait grows exponentially up to `limit`. `jitter` 0.1 spreads it by up to 10 %.
    Raises TaskError when a value is out of range.
    """

    max: int | None = None
    interval: Interval | None = None
    factor: float = 1.0
    limit: Duration = "1h"
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.max is not None and not 0 <= self.max <= 32767:
            raise TaskError(f"Retry: max is {self.max}, allowed is 0 to 32767")
        if not 1 <= self.factor <= 1000 or not 0 <= self.jitter <= 1:
            raise TaskError("Retry: factor is between 1 and 1000, jitter between 0 and 1")
        self.intervals(0.0)
        try:
            parse_duration(self.limit)
        except ValueError as error:
            raise TaskError(f"Retry: limit {error}") from error

    def intervals(self, default: float) -> list[float]:
        """The listed waits in seconds; one entry unless a list was given."""
        if self.interval is None:
            return [default]
        listed = (
            [self.interval]
            if isinstance(self.interval, (str, int, float)) or not isinstance(self.interval, Sequence)
            else self.interval
        )
        try:
            waits = [parse_duration(i) for i in listed]
        except ValueError as error:
            raise TaskError(f"Retry: interval {error}") from error
        if not waits:
            raise TaskError("Retry: interval is an empty list")
        return waits

    def delay(self, failures: int, default: float) -> float:
        """Seconds until the next attempt after the `failures`-th failure (from 1); `default` is the setting RETRY_DELAY."""
        waits = self.intervals(default)
        wait = waits[min(failures, len(waits)) - 1]
        factor = 2.0 if self.interval is None else self.factor
        jitter = 0.1 if self.interval is None else self.jitter
        grown = wait * factor ** min(failures - 1, 64)
        return min(grown, max(parse_duration(self.limit), wait)) * (1 + jitter * random.random())
