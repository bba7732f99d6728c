"""Declare: let the database know what a daemon runs. At most starts nothing is new, and little is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerd.queue import limits, node, notices, prune, schedules

if TYPE_CHECKING:
    from workerd.declaration import Declared
    from workerd.job import AnyConnection


async def declare(connection: AnyConnection, what: Declared) -> None:
    """Raises TaskError for what does not go together with that of other daemons."""
    await prune.add_days(connection, what.ttls)
    await node.declare_tasks(connection, what.tasks)
    await limits.declare(connection, what.tasks)
    await notices.declare(connection, what.tasks)
    await schedules.declare(connection, what.tasks)
