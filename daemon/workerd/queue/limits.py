"""Limits: how many jobs of a queue, of a task, or of each value of a task's limit key start in a second, and run at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workerd.declaration import Declaration
    from workerd.job import AnyConnection
    from workerd.limit import Limit

Scope = Literal["queue", "task", "key"]

_DECLARED = """
    SELECT t.name, t.limit_key, l.scope, l.rate, l.concurrency FROM workerd.task t
    LEFT JOIN workerd.limits l ON l.name = t.name AND l.scope IN ('task', 'key') AND l.origin = 'declared'
    WHERE t.name = ANY ($1)
"""
_FORGET = "DELETE FROM workerd.limits WHERE origin = 'declared' AND scope IN ('task', 'key') AND name = ANY ($1)"
_KEYS = """
    UPDATE workerd.task t SET limit_key = d.limit_key FROM unnest($1::text[], $2::text[]) AS d(name, limit_key)
    WHERE t.name = d.name AND t.limit_key IS DISTINCT FROM d.limit_key
"""
_SET = """
    INSERT INTO workerd.limits (scope, name, origin, rate, concurrency) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (scope, name, origin) DO UPDATE SET rate = excluded.rate, concurrency = excluded.concurrency
"""
_CLEAR = "DELETE FROM workerd.limits WHERE origin = 'operator' AND scope = $1 AND name = $2 RETURNING true"
_MARK = "SELECT workerd.mark_limited()"
_EXISTS = """
    SELECT EXISTS (SELECT FROM workerd.queue WHERE $1 = 'queue' AND name = $2)
        OR EXISTS (SELECT FROM workerd.task WHERE $1 <> 'queue' AND name = $2)
"""
_LIST = """
    SELECT f.scope, f.name, f.origin, f.rate, f.concurrency, t.limit_key,
        (SELECT count(*) FROM workerd.slot s WHERE CASE f.scope WHEN 'queue' THEN s.queue ELSE s.task END = f.name) AS admitted,
        (SELECT count(*) FROM workerd.scheduled w JOIN workerd.lane l ON l.id = w.lane
            WHERE w.waits = 'limit' AND CASE f.scope WHEN 'queue' THEN l.queue ELSE w.task END = f.name) AS waiting
    FROM workerd.limit_in_force f LEFT JOIN workerd.task t ON f.scope = 'key' AND t.name = f.name ORDER BY f.scope DESC, f.name
"""


async def declare(connection: AnyConnection, tasks: Iterable[Declaration]) -> None:
    """Let the database know the limits of each task, as its code declares them; jobs that are queued get into line."""
    wanted = {(t.name, t.limit_key, *_declared(t)) for t in tasks}
    names = [name for name, *_ in wanted]
    if {tuple(row) for row in await connection.fetch(_DECLARED, names)} == wanted:
        return  # as at most starts
    async with connection.transaction():
        await connection.execute(_FORGET, names)
        await connection.execute(_KEYS, names, [key for _, key, *_ in wanted])
        for name, _, scope, rate, concurrency in wanted:
            if scope is not None:
                await connection.execute(_SET, scope, name, "declared", rate, concurrency)
        await connection.execute(_MARK)


def _declared(task: Declaration) -> tuple[Scope | None, float | None, int | None]:
    if not task.limit:
        return None, None, None
    return "task" if task.limit_key is None else "key", task.limit.rate, task.limit.concurrency


async def exists(connection: AnyConnection, scope: Scope, name: str) -> bool:
    """Whether there is that queue or task."""
    known: bool = await connection.fetchval(_EXISTS, scope, name)
    return known


async def put(connection: AnyConnection, scope: Scope, name: str, limit: Limit) -> None:
    """Set an operator's limit, which goes before the declared one; an empty one lifts that. In force within a second."""
    async with connection.transaction():
        await connection.execute(_SET, scope, name, "operator", limit.rate, limit.concurrency)
        await connection.execute(_MARK)


async def clear(connection: AnyConnection, scope: Scope, name: str) -> bool:
    """Forget an operator's limit: the declared one is in force again. False when there was none."""
    async with connection.transaction():
        gone = await connection.fetchval(_CLEAR, scope, name)
        await connection.execute(_MARK)
    return gone is not None


async def find(connection: AnyConnection) -> list[dict[str, Any]]:
    """The limits in force, as JSON-ready values: `rate` in jobs a second, how many are `admitted` (queued or running), `waiting`."""
    return [dict(row) for row in await connection.fetch(_LIST)]
