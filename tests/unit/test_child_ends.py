"""What a child tells the daemon of the end of a handler: the same as the daemon would have decided."""

from __future__ import annotations

from typing import Any

import pytest

from workerd import Discard, PayloadError, Retry, RetryAfter, Snooze, task
from workerd.daemon.children.child import _told

pytestmark = pytest.mark.usefixtures("own_registry")


class Undecided(Snooze):
    """Does not call what it is derived from."""

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ExceptionGroup("", [Snooze(9, "a"), Snooze(5, "b")]), {"kind": "snooze", "text": "a; b", "delay": 5.0}),
        (ExceptionGroup("", [RetryAfter(9, "a"), Snooze(5, "b")]), {"kind": "retry", "text": "a", "delay": 9.0}),
        (ExceptionGroup("", [RetryAfter(9, "a"), Discard("b")]), {"kind": "discard", "text": "b"}),
    ],
)
def test_a_group_of_decisions_is_one(error: Exception, told: dict[str, Any]) -> None:
    assert _told(_task(), error) == told


@pytest.mark.parametrize(
    ("error", "first_line"),
    [
        (PayloadError("of another job"), "workerd.errors.PayloadError: of another job"),
        (Undecided(), "tests.unit.test_child_ends.Undecided (its delay cannot be used: AttributeError: "),
        (GeneratorExit("x"), "GeneratorExit: x"),
    ],
)
def test_all_else_is_an_error_that_may_be_retried(error: BaseException, first_line: str) -> None:
    told = _told(_task(), error)
    assert (told["kind"], told["again"]) == ("raised", True)
    assert told["text"].startswith(first_line)


def _task() -> Any:
    @task(cpu=True, retry=Retry(max=3))
    def handler() -> None:
        pass

    return handler
