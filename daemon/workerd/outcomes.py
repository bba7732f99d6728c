"""How an attempt ends: what handlers raise to decide it, and the one value that the executor makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from workerd.error_text import line_of, text_of
from workerd.errors import leaves
from workerd.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

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


class Unfit(Control):
    """The payload of the job is not what its task takes, or its result is no JSON: another attempt would change nothing."""


class BadDelay(ValueError):
    """A RetryAfter or Snooze has no delay that can be used."""


def decision(error: BaseException) -> Control | None:
    """What a handler has decided by raising this; None when it is an error. Raises BadDelay.

    A group, as `asyncio.TaskGroup` raises, is a decision when nothing but decisions is in it: Discard if one of them is, else RetryAfter
    with the longest delay, else Snooze with the shortest.
    """
    made = list(leaves(error))
    if not all(isinstance(each, Control) for each in made):
        return None
    for kind in (Discard, Unfit, Expired):
        if reasons := [each for each in made if isinstance(each, kind)]:
            return kind(_texts(reasons))
    if failures := [each for each in made if isinstance(each, RetryAfter)]:
        return RetryAfter(max(map(_delay, failures)), _texts(failures))
    if snoozes := [each for each in made if isinstance(each, Snooze)]:
        return Snooze(min(map(_delay, snoozes)), _texts(snoozes))
    return None


def _texts(errors: Sequence[BaseException]) -> str:
    return "; ".join(dict.fromkeys(map(text_of, errors)))


def _delay(error: RetryAfter | Snooze) -> float:
    """Raises BadDelay: a subclass may not have called ours, and attributes can be set to anything."""
    try:
        return parse_duration(error.delay)
    except BaseException as wrong:  # noqa: BLE001 - a class of users may raise anything here
        raise BadDelay(f"its delay cannot be used: {line_of(wrong)}") from None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one attempt. `result` is JSON text; `delay` is seconds until the next attempt (retry and snooze)."""

    ending: Ending
    result: str | None = None
    error: str | None = None
    delay: float | None = None


SUCCEEDED = Outcome("succeeded")  # without a result: the most frequent end, made once
