"""What routes share: the queue, and the record of changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from workerd.queue import audit
from workerd.queue.client import Queue

if TYPE_CHECKING:
    from workerd.job import AnyConnection
    from workerd.queue.tokens import Token


def _queue(request: Request) -> Queue:
    found: Queue = request.app.state.queue
    return found


TheQueue = Annotated[Queue, Depends(_queue)]


async def recorded(
    connection: AnyConnection, token: Token, action: str, target: str | None, detail: dict[str, Any]
) -> None:
    """Write down a change, in its own transaction where it has one."""
    await audit.write(connection, token.name, action, target, detail)
