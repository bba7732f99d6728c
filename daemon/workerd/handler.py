"""What may be a task's handler, and what of it there is to know before it runs."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from workerd.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[..., Any]


def title(fn: Handler) -> str:
    """The name that its task has unless it is given one. Raises TaskError for what has none."""
    found = getattr(_inner(fn), "__name__", None)
    if not isinstance(found, str):
        raise TaskError(f"task: {_shown(fn)} has no name of its own: give name=")
    return found


def place(fn: Handler) -> tuple[str, str]:
    """Module and qualified name: two that have the same are one that was imported twice."""
    inner = _inner(fn)
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    return named.__module__, named.__qualname__


def check(task: str, fn: Handler) -> inspect.Signature:
    """Its signature. Raises TaskError for what no job can run."""
    if not callable(fn):
        raise TaskError(f"task {task}: {_shown(fn)} cannot be called")
    if inspect.isclass(fn):
        raise TaskError(f"task {task}: {fn.__name__} is a class: give a function")
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in _layers(fn)):
        raise TaskError(f"task {task}: a handler that yields would never run: return a list, or enqueue a job for each")
    try:
        return inspect.signature(fn)
    except (ValueError, TypeError) as error:
        raise TaskError(f"task {task}: {_shown(fn)} does not say what arguments it takes: wrap it in a def") from error


def is_async(fn: Handler) -> bool:
    """Whether a call of it makes a coroutine; a plain `def` may return one all the same."""
    return any(inspect.iscoroutinefunction(each) for each in (fn, called(fn)))


async def awaited(made: Any) -> Any:
    """What comes of a call: what it made, or, where that is to be awaited, what that returns."""
    return await made if inspect.isawaitable(made) else made


def _inner(fn: Handler) -> Any:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def called(fn: Handler) -> Any:
    """What runs when it is called: of an object its `__call__`."""
    inner = _inner(fn)
    return inner if inspect.isroutine(inner) or inspect.isclass(inner) else getattr(inner, "__call__", inner)  # noqa: B004


def _layers(fn: Handler) -> tuple[Any, Any]:
    """What is called, and what its wrappers say that they wrap."""
    outer = called(fn)
    return outer, inspect.unwrap(outer)


def _shown(fn: object) -> str:
    return f"a {type(fn).__name__}"
