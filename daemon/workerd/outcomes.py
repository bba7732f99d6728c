"""How an attempt ends: what handlers raise to decide it, and the one value that the executor makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workerd.units import Duration, parse_duration

Ending = Literal["succeeded", "failed", "cancelled", "retry", "snooze", "returned"]


class Control(Exception):
    """What a handler raises to decide how its attempt ends."""


class RetryAfter(Control):
    """Fail this attempt and run the job again after `delay`; spends a retry. ValueError for a wrong duration."""

    def __init__(self, delay: Duration, reason: str = "") -> None:
        super().__init__(reason or f"to be retried after {delay}")
        self.delay = parse_duration(delay)


class Snooze(Control):
    """Run the job again after `delay`; counts no failure. ValueError for a wrong duration."""

    def __init__(self, delay: Duration, reason: str = "") -> None:
        super().__init__(reason or f"snoozed for {delay}")
        self.delay = parse_duration(delay)


class Discard(Control):
    """Fail the job for good, with this reason; no retry."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class Expired(Control):
    """The deadline of the job has passed: it is not to start any more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one attempt. `result` is JSON text; `delay` is seconds until the next attempt (retry and snooze)."""

    ending: Ending
    result: str | None = None
    error: str | None = None
    delay: float | None = None


SUCCEEDED = Outcome("succeeded")  # without a result: the most frequent end, made once
