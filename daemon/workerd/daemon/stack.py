"""Where an asyncio task stands."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


def stack_of(task: asyncio.Task[Any]) -> str:
    """The whole chain of coroutines in which a task waits, outermost first; asyncio itself tells the outermost alone."""
    lines = []
    waits: Any = task.get_coro()
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None) or getattr(waits, "ag_frame", None)
        if frame is not None:
            lines += traceback.format_stack(frame, 1)
        waits = (
            getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None) or getattr(waits, "ag_await", None)
        )
    return "".join(lines)
