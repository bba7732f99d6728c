"""Enqueue: calls of tasks become rows, one at a time or many at once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from workerd import bounds, codec
from workerd.asked import Asked
from workerd.errors import PayloadError, TaskError
from workerd.queue.driver_errors import answered
from workerd.queue.own_transaction import transaction, uncommitted
from workerd.trace import UNTRACED
from workerd.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.job import AnyConnection
    from workerd.tasks import Task
    from workerd.trace import Trace

COPY_FROM = 1000  # jobs from which on a COPY, which takes four round trips, is faster than a statement
_NOTHING = (None,) * 6  # what most calls ask for besides their task
PLAIN = Asked()

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
_ONE = """
    SELECT workerd.enqueue($1, $2::jsonb, queue => $3, priority => $4, run_at => $5, max_retries => $6, delay => $7, key => $8)
"""
_ASKED = """
    SELECT workerd.enqueue($1, $2::jsonb, queue => $3, priority => $4, run_at => $5, max_retries => $6, delay => $7, key => $8,
        after => $9, after_need => $10, after_end => $11, conflict => $12, key_until => $13,
        deadline => coalesce($14, now() + $15::interval), pin => $16, prefer => $17, batch => $18,
        traceparent => $19, tracestate => $20)
"""
_MANY = "SELECT workerd.enqueue_many($1, $2, queue => $3, priority => $4, run_at => $5, max_retries => $6, delay => $7)"
_MANY_ASKED = """
    SELECT workerd.enqueue_many($1, $2, queue => $3, priority => $4, run_at => $5, max_retries => $6, delay => $7,
        after => $8, after_need => $9, after_end => $10, deadline => coalesce($11, now() + $12::interval), pin => $13, prefer => $14,
        traceparent => $15, tracestate => $16)
"""
_RESERVE = "SELECT * FROM workerd.reserve($1, $2, $3, $4, $5, $6)"
_WAKE = "SELECT workerd.wake($1)"


class Options(NamedTuple):
    """What calls have to have in common to go into one statement."""

    task: str
    queue: str | None
    priority: int | None
    run_at: datetime | None
    max_retries: int | None
    delay: timedelta | None
    asked: Asked | None = None
    trace: Trace | None = None


def options(
    task: str | Task[..., Any], queue: str | None, priority: int | None, delay: Duration | None,
    run_at: datetime | None, max_retries: int | None, asked: Asked | None = None,
) -> Options:  # fmt: skip
    """The options of a call, checked; queue and priority default to the task's. Raises TaskError."""
    if isinstance(task, str) and (queue, priority, delay, run_at, max_retries, asked) == _NOTHING:
        return _plain(task)
    if queue is not None:
        bounds.check_name("queue", queue)
    if priority is not None:
        bounds.check_whole("priority", priority, bounds.PRIORITIES)
    if max_retries is not None:
        bounds.check_whole("max_retries", max_retries, bounds.RETRIES)
    if run_at is not None:
        bounds.check_time("run_at", run_at)
    if delay is not None and run_at is not None:
        raise TaskError("delay and run_at exclude each other")
    if isinstance(task, str):
        bounds.check_name("task", task)
        name = task
    else:
        name, queue, priority = task.name, queue or task.queue, task.priority if priority is None else priority
    try:
        wait = None if delay is None else timedelta(seconds=parse_duration(delay))
    except ValueError as error:
        raise TaskError(f"delay {error}") from error
    return Options(name, queue, priority, run_at, max_retries, wait, asked)


@lru_cache(maxsize=1000)
def _plain(task: str) -> Options:
    """The options of a call that asks for nothing: made once for each task, since an enqueue takes hardly longer than to make them."""
    bounds.check_name("task", task)
    return Options(task, None, None, None, None, None)


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


async def plain(connection: AnyConnection, what: Options, payload: str) -> int:
    """Enqueue a job without a key as a role that may write into the table, and return its id."""
    if what.asked is None and what.trace is None and what.run_at is None and what.delay is None:
        now = connection.fetchval(_NOW, what.task, payload, what.max_retries, what.queue, what.priority)
        job_id: int | None = await answered(now)
        if job_id is not None:
            return job_id
    return await one(connection, what, payload, None)  # the lane has to be made, or is limited


async def one(connection: AnyConnection, what: Options, payload: str, key: str | None) -> int:
    """Enqueue a job and return its id, or that of the unfinished one with this key."""
    given = (what.task, payload, *what[1:6], key)
    if what.asked is None and what.trace is None:
        call = connection.fetchval(_ONE, *given)
    else:
        call = connection.fetchval(_ASKED, *given, *(what.asked or PLAIN), *(what.trace or UNTRACED))
    job_id: int = await answered(call)
    return job_id


async def many(connection: AnyConnection, what: Options, payloads: Sequence[str]) -> list[int]:
    """Enqueue one job for each payload, all or none, and return their ids in this order."""
    refuse_keys(what)
    if len(payloads) >= COPY_FROM and what.asked is None:
        ids = await _copy(connection, what, payloads)
        if ids is not None:
            return ids
    if what.asked is None and what.trace is None:
        return [row[0] for row in await answered(connection.fetch(_MANY, what.task, payloads, *what[1:6]))]
    after, need, end, _, _, *rest = (what.asked or PLAIN)[:9]
    given = (what.task, payloads, *what[1:6], after, need, end, *rest, *(what.trace or UNTRACED))
    return [row[0] for row in await answered(connection.fetch(_MANY_ASKED, *given))]


def refuse_keys(what: Options) -> None:
    """Raise TaskError where many jobs are asked for what only one can be."""
    if what.asked is not None and (what.asked.conflict, what.asked.key_until) != ("keep", "finished"):
        raise TaskError("conflict and key_until are about a key, which many jobs cannot share")


async def _copy(connection: AnyConnection, what: Options, payloads: Sequence[str]) -> list[int] | None:
    """None: under a limit each job has its own line."""
    async with transaction(connection):
        return await uncommitted(_copied(connection, what, payloads))


async def _copied(connection: AnyConnection, what: Options, payloads: Sequence[str]) -> list[int] | None:
    lane, due, ids, limited = await connection.fetchrow(  # type: ignore[misc]  # one row always comes
        _RESERVE, len(payloads), what.task, what.queue, what.priority, what.run_at, what.delay
    )
    if due is None and limited:
        return None
    columns = {"id": ids, "lane": repeat(lane), "task": repeat(what.task)}
    trace = None if what.trace is None else what.trace.options
    options = {"max_retries": what.max_retries, "run_at": due, "options": trace}
    columns.update({name: repeat(value) for name, value in options.items() if value is not None})
    await connection.copy_records_to_table(
        "ready" if due is None else "scheduled", schema_name="workerd", columns=[*columns, "payload"],
        records=zip(*columns.values(), payloads, strict=False),
    )  # fmt: skip
    if due is None:
        await connection.execute(_WAKE, lane)
    return list(ids)
