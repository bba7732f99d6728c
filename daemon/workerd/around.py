"""Middleware: what is done around every attempt of every job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workerd.job import Job

    Next = Callable[[], Awaitable[Any]]
    Middleware = Callable[[Job, Next], Awaitable[Any]]

registry: list[Middleware] = []


def middleware(fn: Middleware) -> Middleware:
    """Register `async def around(job, call_next)`: it awaits `call_next()` and returns what that returns, or something else.

    What it raises ends the attempt as if the handler had raised it. The one that is declared first is the outermost.
    """
    if fn not in registry:
        registry.append(fn)
    return fn
