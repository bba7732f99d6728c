"""Functions of users that are no handlers: called so that whatever they do, the daemon goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from workerd import handler
from workerd.daemon.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """On the loop where it is an `async def`, else in a thread."""
    if handler.is_async(fn):
        made = fn(*args, **kwargs)
    else:
        made = await in_thread(handler.place(fn)[1], lambda: fn(*args, **kwargs))
    await handler.awaited(made)


async def trouble(calling: Awaitable[None], limit: float) -> BaseException | None:
    """What it raised, or a TimeoutError when it takes longer than `limit` seconds: it is cancelled then, and not waited for."""
    guarded = asyncio.create_task(_guarded(calling))
    try:
        done, _ = await asyncio.wait([guarded], timeout=limit)
    finally:
        guarded.cancel()
    return guarded.result() if done else TimeoutError(f"it takes longer than {limit:.1f} s")


async def _guarded(calling: Awaitable[None]) -> BaseException | None:
    try:
        await calling
    except BaseException as error:  # noqa: BLE001 - a user's code may raise anything, SystemExit too
        return error
    return None
