"""The registry of nodes: register, beat, leave."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workerd.errors import NodeDead

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workerd.declaration import Declaration
    from workerd.job import AnyConnection
    from workerd.queue.database import Connection

_REGISTER = """
    INSERT INTO workerd.node (id, name, pid, version, heartbeat, locked, tasks, queues, workers, token, transport)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::bigint, CASE WHEN $10::bigint IS NULL THEN 'postgres' ELSE 'http' END)
"""
_BEAT = """
    UPDATE workerd.node SET beat = clock_timestamp(), workers = $2, busy = $3, draining = $4, jobs_done = $5, jobs_failed = $6,
        rss = $7, lag = $8
    WHERE id = $1 AND dead_at IS NULL RETURNING true
"""
_LEAVE = """
    UPDATE workerd.node SET dead_at = clock_timestamp(), stopped = true, busy = 0, jobs_done = $2, jobs_failed = $3
    WHERE id = $1 AND dead_at IS NULL
"""
_TASKS = "SELECT name, queue, priority, max_retries, sensitive FROM workerd.task"
_DECLARE_TASKS = """
    INSERT INTO workerd.task (name, queue, priority, max_retries, sensitive)
    SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::boolean[])
    ON CONFLICT (name) DO UPDATE
    SET queue = excluded.queue, priority = excluded.priority, max_retries = excluded.max_retries, sensitive = excluded.sensitive
    WHERE (task.queue, task.priority, task.max_retries, task.sensitive)
        IS DISTINCT FROM (excluded.queue, excluded.priority, excluded.max_retries, excluded.sensitive)
"""
_MAKE_LANES = """
    SELECT workerd.lane_of(queue, priority)
    FROM (SELECT DISTINCT * FROM unnest($1::text[], $2::int[]) AS l(queue, priority) ORDER BY 1, 2) AS lanes
"""


_OWNER = "SELECT token FROM workerd.node WHERE id = $1"
_REGISTERED = "SELECT EXISTS (SELECT FROM workerd.node WHERE id = $1 AND token = $2 AND dead_at IS NULL)"
_ABOUT = "SELECT name, pid, version, heartbeat::float8, tasks, queues FROM workerd.node WHERE id = $1"


def new_id() -> int:
    """A node id: 63 random bits, new at each registration, so that no write of an earlier life can match."""
    return secrets.randbits(63)


@dataclass(frozen=True)
class Registration:
    """What a daemon tells about itself once."""

    name: str
    pid: int
    version: str
    heartbeat: float  # seconds
    tasks: list[str]
    queues: list[str]  # empty: all


@dataclass
class Figures:
    """What a daemon tells with each beat; the main loop writes, the lease thread measures memory and lag, and reads."""

    workers: int = 0
    busy: int = 0
    draining: bool = False
    done: int = 0
    failed: int = 0
    rss: int | None = None  # bytes
    lag: float | None = None  # seconds that the main loop took to come to what is new
    lost: int = field(default=0)  # finishes that were dropped since the job had been rescued


async def lock(connection: Connection, node: int) -> bool:
    """Take the session lock that shows that this node lives; False when another session holds it."""
    taken: bool = await connection.fetchval("SELECT pg_try_advisory_lock($1)", node)
    return taken


async def register(
    connection: AnyConnection, node: int, about: Registration, *, workers: int, locked: bool, token: int | None = None
) -> None:
    """Enter a node as living; durable before it claims anything. `token`: it works through a manager, with this one."""
    async with connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit = on")
        await connection.execute(
            _REGISTER,
            node,
            about.name,
            about.pid,
            about.version,
            about.heartbeat,
            locked,
            about.tasks,
            about.queues,
            workers,
            token,
        )


async def declare_tasks(connection: AnyConnection, tasks: Iterable[Declaration]) -> None:
    """Let the database know queue, priority and retries of each task.

    Enqueues from SQL go by it. The lanes are made here, since one that an application's transaction makes is closed to all
    others until that transaction ends.
    """
    rows = sorted((t.name, t.queue, t.priority, t.max_retries, t.sensitive) for t in tasks)
    if {tuple(row) for row in await connection.fetch(_TASKS)}.issuperset(rows):
        return  # as at most starts
    async with connection.transaction():
        await connection.execute(_DECLARE_TASKS, *(list(column) for column in zip(*rows, strict=True)))
        await connection.execute(_MAKE_LANES, [row[1] for row in rows], [row[2] for row in rows])


async def beat(connection: AnyConnection, node: int, figures: Figures) -> bool:
    """Say that the node lives; False when it was declared dead."""
    alive = await connection.fetchval(
        _BEAT,
        node,
        figures.workers,
        figures.busy,
        figures.draining,
        figures.done,
        figures.failed,
        figures.rss,
        figures.lag,
    )
    return alive is not None


async def leave(connection: AnyConnection, node: int, figures: Figures) -> None:
    """Deregister, after everything was given back."""
    await connection.execute(_LEAVE, node, figures.done, figures.failed)


async def owner(connection: AnyConnection, node: int) -> int | None:
    """The token of a node that works through a manager; None for any other."""
    token: int | None = await connection.fetchval(_OWNER, node)
    return token


async def is_registered(connection: AnyConnection, node: int, token: int) -> bool:
    """Whether a node lives that has registered with this token."""
    known: bool = await connection.fetchval(_REGISTERED, node, token)
    return known


async def about(connection: AnyConnection, node: int) -> Registration:
    """What a node has told about itself. Raises NodeDead for one that there is not."""
    row = await connection.fetchrow(_ABOUT, node)
    if row is None:
        raise NodeDead(f"there is no node {node} any more")
    return Registration(*row)
