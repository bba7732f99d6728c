"""Notices of failures: which task is told when a job of another one has failed for good."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from workerd.on_failure import refuse_circles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workerd.declaration import Declaration
    from workerd.job import AnyConnection

log = logging.getLogger(__name__)

_DECLARED = "SELECT name, on_failure FROM workerd.task"
_LOCK = "SELECT name, on_failure FROM workerd.task ORDER BY name FOR UPDATE"
_SET = """
    UPDATE workerd.task t SET on_failure = d.on_failure FROM unnest($1::text[], $2::text[]) AS d(name, on_failure)
    WHERE t.name = d.name AND t.on_failure IS DISTINCT FROM d.on_failure
"""


async def declare(connection: AnyConnection, tasks: Iterable[Declaration]) -> None:
    """Let the database know who is told of each task's failures, as its code declares it.

    Raises TaskError where that makes a circle with what other daemons have declared.
    """
    wanted = {task.name: task.on_failure for task in tasks}
    known = {row["name"]: row["on_failure"] for row in await connection.fetch(_DECLARED)}
    for name, told in wanted.items():
        if told is not None and told not in known:
            log.warning(
                "task %s: its on_failure is %s, which no daemon has declared: those jobs wait for one", name, told
            )
    if wanted.items() <= known.items():
        return  # as at most starts
    async with connection.transaction():  # one daemon after the other
        known = {row["name"]: row["on_failure"] for row in await connection.fetch(_LOCK)}
        refuse_circles({**known, **wanted})
        await connection.execute(_SET, list(wanted), list(wanted.values()))
