"""What handlers raise to decide how their attempt ends."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from workerd import Discard, RetryAfter, Snooze
from workerd.outcomes import Control, Outcome

if TYPE_CHECKING:
    from workerd.units import Duration


@pytest.mark.parametrize("kind", [RetryAfter, Snooze])
@pytest.mark.parametrize(("delay", "seconds"), [("5m", 300.0), (0, 0.0), (1.5, 1.5), (timedelta(hours=1), 3600.0)])
def test_a_delay_is_taken_as_every_duration(kind: type[RetryAfter | Snooze], delay: Duration, seconds: float) -> None:
    raised = kind(delay, "the service is busy")
    assert (raised.delay, str(raised)) == (seconds, "the service is busy")


@pytest.mark.parametrize("kind", [RetryAfter, Snooze])
@pytest.mark.parametrize("delay", ["soon", -1, float("nan")])
def test_a_wrong_delay_is_refused(kind: type[RetryAfter | Snooze], delay: Duration) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        kind(delay)


def test_without_a_reason_the_delay_is_the_reason() -> None:
    assert str(RetryAfter("5m")) == "to be retried after 5m"
    assert str(Snooze("5m")) == "snoozed for 5m"


def test_a_discard_needs_its_reason() -> None:
    assert str(Discard("this will never work")) == "this will never work"
    assert all(issubclass(kind, Control) for kind in (RetryAfter, Snooze, Discard))


def test_an_outcome_does_not_change() -> None:
    outcome = Outcome("retry", error="x", delay=1.0)
    with pytest.raises(FrozenInstanceError):
        outcome.delay = 2.0  # type: ignore[misc]
