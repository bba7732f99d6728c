"""What only some jobs are asked for: other jobs to wait for, a node, a deadline, what becomes of another job with the same key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, get_args

from workerd import bounds
from workerd.errors import TaskError
from workerd.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Conflict = Literal["keep", "replace", "reschedule"]
KeyUntil = Literal["finished", "started"]
Need = Literal["all", "any"]
End = Literal["succeeded", "finished"]


@dataclass(frozen=True)
class After:
    """Jobs to wait for: until all or any of them (`need`) have succeeded or, however they end, have finished (`end`).

    When that cannot come true any more the waiting job is cancelled. Raises TaskError when a value is not allowed.
    """

    jobs: Sequence[int]
    need: Need = "all"
    end: End = "succeeded"

    def __post_init__(self) -> None:
        _check("After: need", self.need, Need)
        _check("After: end", self.end, End)
        if not isinstance(self.jobs, Iterable) or not all(type(job) is int and 0 <= job < 2**63 for job in self.jobs):
            raise TaskError(f"after is {self.jobs!r}, allowed is a list of ids of jobs")


class Asks(TypedDict, total=False):
    """Keywords of an enqueue that few jobs need.

    `after`: jobs to wait for; a list means that all of them have to succeed.
    `conflict`: what becomes of a job with the same key that has not started: `keep` (it stays as it is), `replace` (it gets this payload,
    place and time), `reschedule` (this time alone). `key_until`: when the key is free again, `finished` or `started`.
    `deadline`: a job that has not started by then, or after that time, is cancelled.
    `pin`: the node (a name) that is to run it; `prefer`: the one that may have it first, for five seconds while it lives.
    """

    after: Sequence[int] | After | None
    conflict: Conflict
    key_until: KeyUntil
    deadline: Duration | datetime | None
    pin: str | None
    prefer: str | None


NAMES = frozenset(Asks.__annotations__)


class Asked(NamedTuple):
    """The same, checked."""

    after: tuple[int, ...] = ()
    need: Need = "all"
    end: End = "succeeded"
    conflict: Conflict = "keep"
    key_until: KeyUntil = "finished"
    deadline: datetime | None = None
    deadline_in: timedelta | None = None
    pin: str | None = None
    prefer: str | None = None
    batch: bool = False  # it ends when the jobs that it is after have, and no node runs it


def asked(asks: Mapping[str, Any]) -> Asked | None:
    """Check what a call asks for; None: nothing. Raises TaskError for what cannot be."""
    given = {name: value for name, value in asks.items() if value is not None}
    unknown = sorted(given.keys() - NAMES)
    if unknown:
        raise TaskError(f"enqueue knows no option {', '.join(unknown)}")
    if not given:
        return None
    after = given.pop("after", ())
    after = after if isinstance(after, After) else After(after)
    deadline = given.pop("deadline", None)
    _check("conflict", given.get("conflict", "keep"), Conflict)
    _check("key_until", given.get("key_until", "finished"), KeyUntil)
    if "pin" in given and "prefer" in given:
        raise TaskError("pin and prefer exclude each other")
    for name in given.keys() & {"pin", "prefer"}:
        bounds.check_name(f"{name} (the name of a node: `workerctl nodes list` shows them)", given[name])
    at, within = _deadline(deadline)
    return Asked(tuple(after.jobs), after.need, after.end, deadline=at, deadline_in=within, **given)


def _deadline(value: Duration | datetime | None) -> tuple[datetime | None, timedelta | None]:
    if value is None:
        return None, None
    if isinstance(value, datetime):
        bounds.check_time("deadline", value)
        return value, None
    try:
        return None, timedelta(seconds=parse_duration(value))
    except ValueError as error:
        raise TaskError(f"deadline {error}") from error


def _check(what: str, value: object, allowed: Any) -> None:
    if value not in get_args(allowed):
        raise TaskError(f"{what} is {value!r}, allowed is {' or '.join(get_args(allowed))}")
