"""Schedules in the database: set, declared, paused, run, and moved on when they are due."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from workerd import codec
from workerd.errors import JobError, NotFound, TaskError
from workerd.queue.driver_errors import answered
from workerd.rule import Rule, due_times

if TYPE_CHECKING:
    from collections.abc import Iterable

    import asyncpg

    from workerd.declaration import Declaration
    from workerd.job import AnyConnection
    from workerd.schedules import Schedule

MOST = 500  # jobs of one schedule that are enqueued at once
SCHEDULES = 100  # that are served at once

_DUE = """
    SELECT name, kind, rule, tz, catch_up, next_at, updated_at, clock_timestamp() AS now FROM workerd.schedule
    WHERE paused_at IS NULL AND next_at <= clock_timestamp() AND name <> ALL ($2) ORDER BY next_at LIMIT $1
"""
_DUE_NAMES = """
    SELECT name FROM workerd.schedule
    WHERE paused_at IS NULL AND next_at <= clock_timestamp() AND name <> ALL ($2) ORDER BY next_at LIMIT $1
"""
_DUE_ONE = "SELECT name, kind, rule, tz, catch_up, next_at, updated_at, clock_timestamp() AS now FROM workerd.schedule WHERE name = $1"
_SOONEST = (
    "SELECT extract(epoch FROM min(next_at) - clock_timestamp())::float8 FROM workerd.schedule"
    " WHERE paused_at IS NULL AND isfinite(next_at)"
)
_FIRE = "SELECT workerd.fire($1, $2, $3, $4, $5)"
# In this order: nobody moves on what is locked, and the clock is read when it is.
_ENTER = """
    INSERT INTO workerd.schedule (name, task, payload, kind, rule, tz, catch_up) VALUES ($1, $2, '{}', 'at', '', '', 'last')
    ON CONFLICT DO NOTHING
"""
_LOCK = "SELECT declaration, paused_at, kind, rule, tz, last_at FROM workerd.schedule WHERE name = $1 FOR UPDATE"
_NOW = "SELECT clock_timestamp()"
_SET = """
    UPDATE workerd.schedule SET task = $2, payload = $3, queue = $4, priority = $5, kind = $6, rule = $7, tz = $8, catch_up = $9,
        next_at = $10, declaration = $11, updated_at = clock_timestamp() WHERE name = $1
"""
_PAUSE = """
    UPDATE workerd.schedule SET paused_at = coalesce(paused_at, clock_timestamp()), updated_at = clock_timestamp()
    WHERE name = $1 RETURNING true
"""
_RESUME = "UPDATE workerd.schedule SET paused_at = NULL, next_at = $2, updated_at = clock_timestamp() WHERE name = $1"
_REMOVE = "DELETE FROM workerd.schedule WHERE name = $1"
_RUN = (
    "SELECT workerd.enqueue(task, payload, queue => queue, priority => priority) FROM workerd.schedule WHERE name = $1"
)
_FIND = """
    SELECT name, task, payload, queue, priority, kind, rule, tz, catch_up, paused_at IS NOT NULL AS paused,
        declaration IS NOT NULL AS declared,
        CASE WHEN next_at >= '0001-01-02 00:00:00Z' AND next_at < '9999-01-01 00:00:00Z' THEN next_at END AS next_at,
        workerd.shown(next_at) AS next, workerd.shown(last_at) AS last_at
    FROM workerd.schedule ORDER BY name
"""
_DECLARED = "SELECT name, declaration FROM workerd.schedule WHERE declaration IS NOT NULL AND task = ANY ($1)"
_WAKE = "SELECT workerd.wake_leader()"


async def due(connection: AnyConnection, resting: Iterable[str] = ()) -> list[asyncpg.Record]:
    """The schedules that are due but for those that rest, the most overdue first. Raises ValueError where a time cannot be read."""
    rows: list[asyncpg.Record] = await connection.fetch(_DUE, SCHEDULES, list(resting))
    return rows


async def due_names(connection: AnyConnection, resting: Iterable[str]) -> list[str]:
    """Their names, which can always be read."""
    return [row["name"] for row in await connection.fetch(_DUE_NAMES, SCHEDULES, list(resting))]


async def due_one(connection: AnyConnection, name: str) -> asyncpg.Record | None:
    """One of them. Raises ValueError where it has a time that cannot be read."""
    row: asyncpg.Record | None = await connection.fetchrow(_DUE_ONE, name)
    return row


async def fire(connection: AnyConnection, row: asyncpg.Record) -> int:
    """Enqueue what is due of one of them and move it on, in one transaction; returns how many jobs.

    Raises TaskError for a rule that cannot be.
    """
    times, following = due_times(_rule(row), row["next_at"], row["now"], row["catch_up"], MOST)
    done = await connection.fetchval(_FIRE, row["name"], row["next_at"], row["updated_at"], times, following)
    return len(times) if done else 0


async def soonest(connection: AnyConnection) -> float | None:
    """Seconds until the next one is due; None: none ever is."""
    seconds: float | None = await connection.fetchval(_SOONEST)
    return seconds


async def put(
    connection: AnyConnection, name: str, task: str, wanted: Schedule, declaration: str | None = None
) -> None:
    """Set a schedule, whether there is one of this name or not. In force within a second."""
    async with connection.transaction():
        await connection.execute(_ENTER, name, task)
        row = await connection.fetchrow(_LOCK, name)
        assert row is not None
        await answered(
            connection.execute(
                _SET,
                name,
                task,
                codec.dumps(dict(wanted.payload), f"the payload of {name}"),
                wanted.queue,
                wanted.priority,
                wanted.rule.kind,
                wanted.rule.text,
                wanted.rule.tz,
                wanted.catch_up,
                await _next(connection, wanted.rule, row["last_at"]),
                row["declaration"] if declaration is None else declaration,
            )
        )
        await connection.execute(_WAKE)


async def declare(connection: AnyConnection, tasks: Iterable[Declaration]) -> None:
    """Let the schedules be as the code declares them. What an operator changed holds until its declaration changes.

    One that is declared no more is removed by a daemon that has its task: the last one that starts decides.
    """
    tasks = list(tasks)
    known = {
        row["name"]: row["declaration"] for row in await connection.fetch(_DECLARED, [task.name for task in tasks])
    }
    wanted = {name: (task.name, each) for task in tasks for name, each in task.schedules.items()}
    for name, (task_name, each) in wanted.items():
        declaration = _declaration(task_name, each)
        if known.get(name) is None or json.loads(known[name]) != json.loads(declaration):
            await put(connection, name, task_name, each, declaration)
    for name in known.keys() - wanted.keys():
        await connection.execute(_REMOVE, name)


def _declaration(task: str, each: Schedule) -> str:
    rule = [each.rule.kind, each.rule.text, each.rule.tz]
    return codec.dumps([task, rule, dict(each.payload), each.catch_up, each.queue, each.priority], "a declaration")


async def pause(connection: AnyConnection, name: str) -> None:
    """Let nothing be enqueued until it is resumed. Raises JobError when there is no such schedule."""
    if await connection.fetchval(_PAUSE, name) is None:
        raise _unknown(name)


async def resume(connection: AnyConnection, name: str) -> None:
    """Go on from now: due times of the pause have no jobs. Raises JobError when there is no such schedule."""
    async with connection.transaction():
        row = await connection.fetchrow(_LOCK, name)
        if row is None:
            raise _unknown(name)
        if row["paused_at"] is not None:
            await connection.execute(_RESUME, name, await _next(connection, _rule(row), row["last_at"]))
            await connection.execute(_WAKE)


async def remove(connection: AnyConnection, name: str) -> None:
    """Raises JobError when there is no such schedule, or when the code declares it, which would bring it back."""
    row = await connection.fetchrow(_LOCK, name)
    if row is None:
        raise _unknown(name)
    if row["declaration"] is not None:
        raise JobError(f"the code declares the schedule {name}, so it would come back: pause it, or remove it there")
    await connection.execute(_REMOVE, name)


async def run(connection: AnyConnection, name: str) -> int:
    """Enqueue its job now, besides those that are due; returns the id. Raises JobError when there is no such schedule."""
    job: int | None = await connection.fetchval(_RUN, name)
    if job is None:
        raise _unknown(name)
    return job


async def find(connection: AnyConnection, ahead: int = 1) -> list[dict[str, Any]]:
    """All schedules as JSON-ready values, `next` being the times at which each is due next, `ahead` of them."""
    return [_shown(row, ahead) for row in await connection.fetch(_FIND)]


def _shown(row: asyncpg.Record, ahead: int) -> dict[str, Any]:
    """A time that no calendar here has stays the text that it is; so does a rule that cannot be, with the reason as its words."""
    names = (
        "name",
        "task",
        "queue",
        "priority",
        "kind",
        "rule",
        "tz",
        "catch_up",
        "next_at",
        "last_at",
        "paused",
        "declared",
    )
    told = {**{name: row[name] for name in names}, "payload": codec.shown(row["payload"])}
    times: list[datetime | str] = [] if row["paused"] or row["next"] is None else [row["next_at"] or row["next"]]
    try:
        rule = _rule(row)
    except TaskError as error:
        return {**told, "words": str(error), "next": times}
    while 0 < len(times) < ahead and isinstance(moment := times[-1], datetime):
        following = rule.next_after(moment)
        if following is None:
            break
        times.append(following)
    return {**told, "words": rule.words, "next": times[:ahead]}


def _rule(row: asyncpg.Record) -> Rule:
    return Rule(row["kind"], row["rule"], row["tz"])


async def _next(connection: AnyConnection, rule: Rule, last: datetime | None) -> datetime | None:
    """A due time that had its job is not due again, whatever the clock did."""
    now: datetime = await connection.fetchval(_NOW)
    return rule.next_after(max(now, last or datetime.min.replace(tzinfo=UTC)))


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no schedule {name}: workerctl schedules list")
