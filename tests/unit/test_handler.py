"""Which callables may be handlers, and what is refused before any job runs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from workerd import TaskError, task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.usefixtures("own_registry")


async def awaited(first: int, n: int = 0) -> int:
    return first + n


def plain(first: int, n: int = 0) -> int:
    return first + n


def yields(n: int = 0) -> Iterator[int]:
    yield n


async def yields_later(n: int = 0) -> AsyncIterator[int]:
    yield n


@functools.wraps(yields)
def behind_a_wrapper(*given: Any, **named: Any) -> Any:
    return yields(*given, **named)


class Awaited:
    async def __call__(self, n: int = 0) -> int:
        return n

    async def method(self, n: int = 0) -> int:
        return n


class Plain:
    def __call__(self, n: int = 0) -> int:
        return n


class Yields:
    def __call__(self, n: int = 0) -> Iterator[int]:
        yield n


@pytest.mark.parametrize(
    ("fn", "is_async"),
    [
        (Awaited(), True),
        (Awaited().method, True),
        (functools.partial(awaited, 1), True),
        (functools.partial(Awaited(), n=1), True),
        (Plain(), False),
        (functools.partial(plain, 1), False),
    ],
)
def test_what_is_called_decides_where_it_runs(fn: Callable[..., Any], is_async: bool) -> None:
    declared = task(name="named")(fn)
    assert (declared.is_async, declared.arguments.bind(n=2)) == (is_async, {"n": 2})
    assert task(name="named")(fn).fn is fn, "it may be declared again"


def test_a_partial_has_the_name_of_its_function() -> None:
    assert task(functools.partial(plain, 1)).name == "plain"


@pytest.mark.parametrize(
    ("fn", "reason"),
    [
        (yields, "a handler that yields would never run"),
        (yields_later, "a handler that yields would never run"),
        (functools.partial(yields), "a handler that yields would never run"),
        (behind_a_wrapper, "a handler that yields would never run"),
        (Yields(), "a handler that yields would never run"),
        (Plain, "Plain is a class: give a function"),
        (int, "int is a class: give a function"),
        ("text", "a str cannot be called"),
        (type.mro, "cannot be given by name"),
        (max, "does not say what arguments it takes"),
    ],
)
def test_what_no_job_can_run_is_refused_in_one_line(fn: Any, reason: str) -> None:
    with pytest.raises(TaskError, match=f"task named: .*{reason}|task named: {reason}") as caught:
        task(name="named")(fn)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fn", [Plain(), functools.partial(Plain()), 7])
def test_what_has_no_name_needs_one(fn: Any) -> None:
    with pytest.raises(TaskError, match="has no name of its own: give name="):
        task(fn)
