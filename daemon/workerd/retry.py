"""Whether a failed job runs again, and when: pure functions of what was raised and of the number of failures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from workerd.bounds import RETRIES, check_whole
from workerd.errors import TaskError, WorkerdError, leaves
from workerd.units import Duration, parse_duration

Interval = Duration | Sequence[Duration]
Raised = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True)
class Retry:
    """`max` retries after the first attempt (None: the setting MAX_RETRIES).

    `interval` is the wait before a retry: one duration (fixed), or a list whose last entry repeats; None: RETRY_DELAY with
    `factor` 2. With `factor` above 1 the wait grows exponentially up to `limit`. `jitter` 0.1 spreads it by up to 10 %.
    `on`: the exceptions that are retried, a class or several (None: all); `give_up_on`: those that are not, though they are among them.
    Raises TaskError when a value is out of range.
    """

    max: int | None = None
    interval: Interval | None = None
    factor: float = 1.0
    limit: Duration = "1h"
    jitter: float = 0.0
    on: Raised | None = None
    give_up_on: Raised = ()

    def __post_init__(self) -> None:
        if self.max is not None:
            check_whole("Retry: max", self.max, RETRIES)
        if not 1 <= self.factor <= 1000 or not 0 <= self.jitter <= 1:
            raise TaskError("Retry: factor is between 1 and 1000, jitter between 0 and 1")
        if self.on is not None:
            _check_classes("on", self.on)
        _check_classes("give_up_on", self.give_up_on)
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

    def covers(self, error: BaseException) -> bool:
        """Whether an attempt in which the handler raised this is retried, as long as retries are left.

        Of a group each member counts. Errors of workerd itself are no fault of the handler: a resource that does not open, say.
        """
        members = list(leaves(error))
        if any(isinstance(each, self.give_up_on) for each in members):
            return False
        return self.on is None or all(isinstance(each, (self.on, WorkerdError)) for each in members)

    def delay(self, failures: int, default: float) -> float:
        """Seconds until the next attempt after the `failures`-th failure (from 1); `default` is the setting RETRY_DELAY."""
        waits = self.intervals(default)
        wait = waits[min(failures, len(waits)) - 1]
        factor = 2.0 if self.interval is None else self.factor
        jitter = 0.1 if self.interval is None else self.jitter
        grown = wait * factor ** min(failures - 1, 64)
        return min(grown, max(parse_duration(self.limit), wait)) * (1 + jitter * random.random())


def _check_classes(option: str, given: object) -> None:
    for each in given if isinstance(given, tuple) else (given,):
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise TaskError(f"Retry: {option} is {given!r}, allowed is a class of exceptions or a tuple of them")
