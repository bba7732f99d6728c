"""What is done when a daemon starts, and when it has drained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

startups: list[Callable[..., Any]] = []
shutdowns: list[Callable[..., Any]] = []


def on_startup(fn: F) -> F:
    """Register what is done before a daemon claims its first job: an `async def`, or a `def`, which runs in a thread.

    Its parameters are resources (`use(client)`), if it has any. What it raises stops the daemon. Order: as declared.
    """
    return _register(startups, fn)


def on_shutdown(fn: F) -> F:
    """Register what is done when a daemon has drained, before resources are closed; within 10 seconds, all together, though each has one.

    As `on_startup`, but what it raises is logged. Order: the last declared is the first.
    """
    return _register(shutdowns, fn)


def _register(registry: list[Callable[..., Any]], fn: F) -> F:
    if fn not in registry:
        registry.append(fn)
    return fn
