"""Enqueue: calls of tasks become rows, one at a time or many at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Any

from workerd import bounds, codec
from workerd.asked import KEYED, JobOptions, arguments
from workerd.errors import PayloadError, TaskError
from workerd.queue.driver_errors import answered
from workerd.queue.own_transaction import transaction, uncommitted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workerd.job import AnyConnection
    from workerd.tasks import Task

COPY_FROM = 1000  # jobs from which on a COPY, which takes four round trips, is faster than a statement
# Options of calls that are written without a function of their own: single ones share a statement, many are copied.
SIMPLE = frozenset({"queue", "priority", "run_at", "max_retries", "delay"})
IMMEDIATE = SIMPLE - {"run_at", "delay"}

# What `workerd.enqueue` does, for the most frequent case and who may write into the table: a function takes a quarter longer.
_NOW = """
    INSERT INTO workerd.ready (lane, id, max_retries, task, payload)
    SELECT l.id, nextval('workerd.job_id'), $3, $1, $2
    FROM (VALUES ($1)) AS call(task) LEFT JOIN workerd.task t ON t.name = call.task
    JOIN workerd.lane l ON l.queue = coalesce($4, t.queue, 'default') AND l.priority = coalesce($5, t.priority, 0) AND l.node IS NULL
    WHERE NOT l.limited AND t.limited IS NOT TRUE
    RETURNING id, workerd.wake(lane)
"""
_MAY_WRITE = "SELECT has_table_privilege(to_regclass('workerd.ready')::oid, 'INSERT')"
_RESERVE = "SELECT * FROM workerd.reserve($1, $2, $3, $4, $5, $6)"
_WAKE = "SELECT workerd.wake($1)"
# The types of arguments; `bool` is before `int`, of which it is a kind.
_TYPES = {str: "text", bool: "boolean", int: "int", datetime: "timestamptz", timedelta: "interval", tuple: "bigint[]"}


def options(task: str | Task[..., Any], given: Mapping[str, Any]) -> JobOptions:
    """The options of a call, checked; queue and priority default to the task's. Raises TaskError."""
    plain = _plain(task)
    if not given:
        return plain
    return replace(plain, given={**plain.given, **arguments(given)})


@lru_cache(maxsize=1000)
def _plain(task: str | Task[..., Any]) -> JobOptions:
    """Those of a call without options: made once for each task, since an enqueue takes hardly longer than to make them."""
    if isinstance(task, str):
        bounds.check_name("task", task)
        return JobOptions(task)
    return JobOptions(task.name, {"queue": task.queue, "priority": task.priority})


def payload_text(task: str | Task[..., Any], payload: Mapping[str, Any]) -> str:
    """A payload as JSON, checked by the task's annotations if it is given. Raises PayloadError."""
    name = task if isinstance(task, str) else task.name
    if type(payload) is not dict:
        payload = _arguments(name, payload)
    if not isinstance(task, str):
        payload = task.arguments.carried(payload)
    return codec.dumps(payload if type(payload) is dict else dict(payload), f"the payload of {name}")


def _arguments(task: str, payload: object) -> dict[str, Any]:
    if not isinstance(payload, Mapping):
        raise PayloadError(f"the payload of {task} is a {type(payload).__name__}, allowed is a dict of its arguments")
    return dict(payload)


async def may_write(connection: AnyConnection) -> bool | None:
    """Whether the role of the connection may write jobs without the functions that check them; None: there is no queue yet."""
    may: bool | None = await answered(connection.fetchval(_MAY_WRITE))
    return may


async def plain(connection: AnyConnection, what: JobOptions, payload: str) -> int:
    """Enqueue a job as a role that may write into the table, and return its id."""
    if what.trace is None and IMMEDIATE.issuperset(what.given):
        given = what.given
        values = (what.task, payload, given.get("max_retries"), given.get("queue"), given.get("priority"))
        job_id: int | None = await answered(connection.fetchval(_NOW, *values))
        if job_id is not None:
            return job_id
    return await one(connection, what, payload)  # the lane has to be made, or is limited


async def one(connection: AnyConnection, what: JobOptions, payload: str) -> int:
    """Enqueue a job and return its id, or that of the unfinished one with this key."""
    statement, values = call("enqueue", f"payload => {_cast(2, 'jsonb')}", payload, what, _cast)
    job_id: int = await answered(connection.fetchval(statement, *values))
    return job_id


async def many(connection: AnyConnection, what: JobOptions, payloads: Sequence[str]) -> list[int]:
    """Enqueue one job for each payload, all or none, and return their ids in this order."""
    refuse_keys(what)
    if len(payloads) >= COPY_FROM and SIMPLE.issuperset(what.given):
        ids = await _copy(connection, what, payloads)
        if ids is not None:
            return ids
    statement, values = call("enqueue_many", f"payloads => {_cast(2, 'text[]')}", payloads, what, _cast)
    return [row[0] for row in await answered(connection.fetch(statement, *values))]


def refuse_keys(what: JobOptions) -> None:
    """Raise TaskError where many jobs are to have what only one can."""
    if not KEYED.isdisjoint(what.given):
        raise TaskError("key, conflict and key_until are about a key, which many jobs cannot share")


def call(
    function: str, payload: str, written: object, what: JobOptions, cast: Callable[[int, str], str]
) -> tuple[str, list[Any]]:
    """A call of a function by named notation, and its values.

    `payload` names the argument of the second value; `cast` writes the placeholder of a value as one of a type.
    """
    parts, values = [f"task => {cast(1, 'text')}", payload], [what.task, written]
    for name, value in (*what.given.items(), *(what.trace.headers.items() if what.trace is not None else ())):
        values.append(value)
        argument = cast(len(values), next(kind for of, kind in _TYPES.items() if isinstance(value, of)))
        from_now = name == "deadline" and isinstance(value, timedelta)
        parts.append(f"{name} => {'now() + ' if from_now else ''}{argument}")
    return f"SELECT workerd.{function}({', '.join(parts)})", values


def _cast(place: int, kind: str) -> str:
    return f"${place}::{kind}"


async def _copy(connection: AnyConnection, what: JobOptions, payloads: Sequence[str]) -> list[int] | None:
    """None: under a limit each job has its own line."""
    async with transaction(connection):
        return await uncommitted(_copied(connection, what, payloads))


async def _copied(connection: AnyConnection, what: JobOptions, payloads: Sequence[str]) -> list[int] | None:
    lane, due, ids, limited = await connection.fetchrow(  # type: ignore[misc]  # one row always comes
        _RESERVE, len(payloads), what.task, *map(what.given.get, ("queue", "priority", "run_at", "delay"))
    )
    if due is None and limited:
        return None
    columns = {"id": ids, "lane": repeat(lane), "task": repeat(what.task)}
    trace = None if what.trace is None else what.trace.options
    options = {"max_retries": what.given.get("max_retries"), "run_at": due, "options": trace}
    columns.update({name: repeat(value) for name, value in options.items() if value is not None})
    await connection.copy_records_to_table(
        "ready" if due is None else "scheduled",
        schema_name="workerd",
        columns=[*columns, "payload"],
        records=zip(*columns.values(), payloads, strict=False),
    )
    if due is None:
        await connection.execute(_WAKE, lane)
    return list(ids)
