"""The options of an enqueue: each is defined once, in `EnqueueOptions`, with its type, its help and its check."""
# No `from __future__ import annotations`: what the types are annotated with is read at run time.

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, TypeVar, get_args

from workerd import bounds
from workerd.errors import TaskError
from workerd.trace import Trace
from workerd.units import Duration, parse_duration

Conflict = Literal["keep", "replace", "reschedule"]
KeyUntil = Literal["finished", "started"]
Need = Literal["all", "any"]
End = Literal["succeeded", "finished"]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class After:
    """Jobs to wait for: until all or any of them (`need`) have succeeded or, however they end, have finished (`end`).

    When that cannot come true any more the waiting job is cancelled. Raises TaskError when a value is not allowed.
    """

    jobs: Sequence[int]
    need: Need = "all"
    end: End = "succeeded"

    def __post_init__(self) -> None:
        one_of(Need)("After: need", self.need)
        one_of(End)("After: end", self.end)
        if not isinstance(self.jobs, Iterable) or not all(type(job) is int and 0 <= job < 2**63 for job in self.jobs):
            raise TaskError(f"after is {self.jobs!r}, allowed is a list of ids of jobs")


class Option(NamedTuple):
    """What is known of an option besides its type."""

    help: str
    check: Callable[[str, Any], Any]  # takes name and value, returns the value as the queue takes it, raises TaskError
    default: Any = None  # a value that is the same as none


@dataclass(frozen=True)
class Whole:
    """Checks a whole number within limits."""

    least: int
    most: int

    def __call__(self, name: str, value: Any) -> int:
        bounds.check_whole(name, value, (self.least, self.most))
        whole: int = value
        return whole


def one_of(allowed: Any) -> Callable[[str, Any], Any]:
    """Check that a value is one of a Literal."""

    def check(name: str, value: Any) -> Any:
        if value not in get_args(allowed):
            raise TaskError(f"{name} is {value!r}, allowed is {' or '.join(get_args(allowed))}")
        return value

    return check


def _name(name: str, value: Any) -> Any:
    bounds.check_name(name, value)
    return value


def _node(name: str, value: Any) -> Any:
    bounds.check_name(f"{name} (the name of a node: `workerctl nodes list` shows them)", value)
    return value


def _key(_name: str, value: Any) -> Any:
    bounds.check_key(value)
    return value


def _time(name: str, value: Any) -> Any:
    bounds.check_time(name, value)
    return value


def _duration(name: str, value: Any) -> timedelta:
    try:
        return timedelta(seconds=parse_duration(value))
    except ValueError as error:
        raise TaskError(f"{name} {error}") from error


def _deadline(name: str, value: Any) -> Any:
    return _time(name, value) if isinstance(value, datetime) else _duration(name, value)


def _after(_name: str, value: Any) -> After:
    return value if isinstance(value, After) else After(value)


class BatchOptions(TypedDict, total=False):
    """The options that many jobs can share."""

    queue: Annotated[str | None, Option("The queue instead of the task's.", _name)]
    priority: Annotated[int | None, Option("The priority instead of the task's.", Whole(*bounds.PRIORITIES))]
    delay: Annotated[Duration | None, Option("How long the job waits before it may start.", _duration)]
    run_at: Annotated[datetime | None, Option("Not before this time, with its zone.", _time)]
    max_retries: Annotated[int | None, Option("Retries instead of the task's.", Whole(*bounds.RETRIES))]
    after: Annotated[Sequence[int] | After | None, Option("Jobs to wait for; of a list all have to succeed.", _after)]
    deadline: Annotated[
        Duration | datetime | None, Option("A job that has not started by then is cancelled.", _deadline)
    ]
    pin: Annotated[str | None, Option("The node that is to run it.", _node)]
    prefer: Annotated[str | None, Option("The node that may have it first, for five seconds while it lives.", _node)]


class EnqueueOptions(BatchOptions, total=False):
    """The options of an enqueue; None is the same as not given."""

    key: Annotated[str | None, Option("While a job with this key is not finished, its id is the answer.", _key)]
    conflict: Annotated[
        Conflict, Option("What becomes of a job with this key that has not started.", one_of(Conflict), "keep")
    ]
    key_until: Annotated[KeyUntil, Option("When the key is free again.", one_of(KeyUntil), "finished")]


DEFINITIONS: Mapping[str, Option] = {name: get_args(hint)[1] for name, hint in EnqueueOptions.__annotations__.items()}
# Options about a key, which only one job can have.
KEYED = frozenset(DEFINITIONS.keys() - BatchOptions.__annotations__.keys())
EXCLUSIVE = (("delay", "run_at"), ("pin", "prefer"))


@dataclass(frozen=True, slots=True)
class JobOptions:
    """A task and the checked options of an enqueue. Calls for which they are equal can share a statement.

    `given`: arguments of `workerd.enqueue` by their names, in the order of their definition; those not given are left out.
    """

    task: str
    given: Mapping[str, Any] = field(default_factory=dict)
    trace: Trace | None = None

    def __hash__(self) -> int:
        return hash((self.task, *self.given))


def arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given as arguments of `workerd.enqueue`. Raises TaskError for those that are unknown or not allowed."""
    given = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(given.keys() - DEFINITIONS.keys())
    if unknown:
        raise TaskError(f"enqueue knows no option {', '.join(unknown)}")
    for one, other in EXCLUSIVE:
        if one in given and other in given:
            raise TaskError(f"{one} and {other} exclude each other")
    found: dict[str, Any] = {}
    for name, option in DEFINITIONS.items():
        if name not in given or given[name] == option.default:
            continue
        value = option.check(name, given[name])
        if isinstance(value, After):
            found |= {"after": tuple(value.jobs), "after_need": value.need, "after_end": value.end}
        else:
            found[name] = value
    return found


def explained(function: F) -> F:
    """Add the options to the docstring of a function that takes them."""
    lines = [f"  {name}: {option.help}" for name, option in DEFINITIONS.items()]
    function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Options:", *lines])
    return function
