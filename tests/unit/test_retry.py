"""When a failed job runs again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerd import JobError, Retry, TaskError


@pytest.mark.parametrize(
    ("retry", "waits"),
    [
        (Retry(interval="5m"), [300, 300, 300]),
        (Retry(interval=timedelta(seconds=2)), [2, 2, 2]),
        (Retry(interval=[1, "10s", timedelta(minutes=1)]), [1, 10, 60, 60]),
        (Retry(interval=("1s",)), [1, 1]),
        (Retry(interval=0), [0, 0]),
        (Retry(interval=1, factor=2), [1, 2, 4, 8]),
        (Retry(interval=1, factor=10, limit="30s"), [1, 10, 30, 30]),
        (Retry(interval=1000, factor=2), [1000, 2000, 3600, 3600]),
        (Retry(interval="2h"), [7200, 7200]),
        (Retry(interval="2h", factor=2), [7200, 7200]),  # a limit below the interval does not shorten it
    ],
)
def test_the_wait_follows_the_number_of_failures(retry: Retry, waits: list[float]) -> None:
    assert [retry.delay(failures, 60.0) for failures in range(1, len(waits) + 1)] == waits


def test_the_default_doubles_retry_delay_up_to_an_hour_and_spreads_it_by_a_tenth() -> None:
    for failures, base in enumerate([60, 120, 240, 480, 960, 1920, 3600, 3600], start=1):
        assert base <= Retry().delay(failures, 60.0) <= base * 1.1


@given(
    factor=st.floats(min_value=1, max_value=1000),
    jitter=st.floats(min_value=0, max_value=1),
    interval=st.floats(min_value=0, max_value=1e6),
    limit=st.floats(min_value=0, max_value=1e6),
    failures=st.integers(min_value=1, max_value=40000),
)
def test_no_wait_leaves_its_bounds(factor: float, jitter: float, interval: float, limit: float, failures: int) -> None:
    wait = Retry(interval=interval, factor=factor, limit=limit, jitter=jitter).delay(failures, 60.0)
    assert min(interval, limit) <= wait <= max(interval, limit) * (1 + jitter) * 1.000001


ANY, SOME = Retry(), Retry(on=(ConnectionError, TimeoutError), give_up_on=ConnectionRefusedError)
NOT_THESE = Retry(give_up_on=(ValueError, PermissionError))


@pytest.mark.parametrize(
    ("retry", "error", "again"),
    [
        (ANY, ValueError(), True),
        (ANY, asyncio.CancelledError(), True),
        (SOME, TimeoutError(), True),
        (SOME, ConnectionResetError(), True),
        (SOME, ConnectionRefusedError(), False),
        (SOME, ValueError(), False),
        (SOME, asyncio.CancelledError(), False),
        (SOME, JobError("the resource x cannot be opened"), True),
        (SOME, BaseExceptionGroup("", [TimeoutError(), ExceptionGroup("", [ConnectionResetError()])]), True),
        (SOME, BaseExceptionGroup("", [TimeoutError(), ExceptionGroup("", [ConnectionRefusedError()])]), False),
        (SOME, ExceptionGroup("", [TimeoutError(), ValueError()]), False),
        (NOT_THESE, KeyError(), True),
        (NOT_THESE, UnicodeError(), False),  # a ValueError
        (NOT_THESE, ExceptionGroup("", [KeyError(), PermissionError()]), False),
        (Retry(give_up_on=JobError), JobError("no"), False),
    ],
)
def test_what_was_raised_decides_whether_it_is_retried(retry: Retry, error: BaseException, again: bool) -> None:
    assert retry.covers(error) is again


def test_jitter_spreads() -> None:
    waits = {Retry(interval=100, jitter=0.5).delay(1, 60.0) for _ in range(50)}
    assert len(waits) > 1
    assert all(100 <= wait <= 150 for wait in waits)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max": -1}, "max is -1, allowed is a whole number from 0 to 32767"),
        ({"max": 32768}, "max is 32768, allowed is a whole number from 0 to 32767"),
        ({"factor": 0.5}, "factor is between 1 and 1000"),
        ({"factor": float("nan")}, "factor is between 1 and 1000"),
        ({"factor": 1e6}, "factor is between 1 and 1000"),
        ({"jitter": -0.1}, "jitter between 0 and 1"),
        ({"jitter": 2}, "jitter between 0 and 1"),
        ({"interval": "soon"}, "interval 'soon' is not a duration"),
        ({"interval": [1, "soon"]}, "interval 'soon' is not a duration"),
        ({"interval": -1}, "interval -1 is not a duration"),
        ({"interval": []}, "interval is an empty list"),
        ({"limit": "never"}, "limit 'never' is not a duration"),
        ({"on": "ValueError"}, "on is 'ValueError', allowed is a class of exceptions or a tuple of them"),
        ({"give_up_on": (ValueError, int)}, "give_up_on is .*, allowed is a class of exceptions"),
    ],
)
def test_what_is_out_of_range_is_refused_when_it_is_declared(options: dict[str, Any], says: str) -> None:
    with pytest.raises(TaskError, match=f"^Retry: .*{says}"):
        Retry(**options)
