"""Enqueue: calls of tasks become rows, one at a time, many at once, or many callers' ones together."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from workerd import codec
from workerd.errors import DatabaseError, PayloadError, TaskError
from workerd.queue.database import CONNECTION_ERRORS
from workerd.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from workerd.job import AnyConnection
    from workerd.tasks import Task

BATCH = 1000  # single enqueues that go into one statement at most

_ONE = """
    SELECT workerd.enqueue($1, $2::jsonb, queue => $3, priority => $4, run_at => $5, max_retries => $6, delay => $7, key => $8)
"""
_MANY = "SELECT workerd.enqueue_many($1, $2, queue => $3, priority => $4, run_at => $5, max_retries => $6, delay => $7)"


class Options(NamedTuple):
    """What calls have to have in common to go into one statement."""

    task: str
    queue: str | None
    priority: int | None
    run_at: datetime | None
    max_retries: int | None
    delay: timedelta | None


def options(
    task: str | Task[..., Any], queue: str | None, priority: int | None, delay: Duration | None,
    run_at: datetime | None, max_retries: int | None,
) -> Options:  # fmt: skip
    """The options of a call, checked; queue and priority default to the task's. Raises TaskError."""
    if isinstance(task, str):
        name = task
    else:
        name, queue, priority = task.name, queue or task.queue, task.priority if priority is None else priority
    if delay is not None and run_at is not None:
        raise TaskError("delay and run_at exclude each other")
    if run_at is not None and run_at.tzinfo is None:
        raise TaskError("run_at has no time zone: use datetime.now(timezone.utc) or another aware datetime")
    try:
        wait = None if delay is None else timedelta(seconds=parse_duration(delay))
    except ValueError as error:
        raise TaskError(f"delay {error}") from error
    return Options(name, queue, priority, run_at, max_retries, wait)


def payload_text(task: str, payload: Mapping[str, Any]) -> str:
    """A payload as JSON. Raises PayloadError."""
    return codec.dumps(payload if type(payload) is dict else dict(payload), f"the payload of {task}")


async def one(connection: AnyConnection, what: Options, payload: str, key: str | None) -> int:
    """Enqueue a job and return its id, or that of the unfinished one with this key."""
    job_id: int = await answered(connection.fetchval(_ONE, what.task, payload, *what[1:], key))
    return job_id


async def many(connection: AnyConnection, what: Options, payloads: list[str]) -> list[int]:
    """Enqueue one job for each payload, all or none, and return their ids in this order."""
    return [row[0] for row in await answered(connection.fetch(_MANY, what.task, payloads, *what[1:]))]


async def answered(query: Any) -> Any:
    """Await a query of an application; what the database refuses becomes one line."""
    try:
        return await query
    except (asyncpg.InvalidParameterValueError, asyncpg.DataError, asyncpg.CheckViolationError) as error:
        raise PayloadError(str(error)) from error
    except asyncpg.UndefinedFunctionError as error:
        raise DatabaseError("the database has no queue yet: start a daemon or run `workerctl db upgrade`") from error
    except (asyncpg.InsufficientPrivilegeError, *CONNECTION_ERRORS) as error:
        raise DatabaseError(f"the database did not do it: {str(error) or type(error).__name__}") from error


class Coalescer:
    """Single enqueues that are awaited at the same time go into one statement; each caller gets its own id or its own error."""

    def __init__(self, connection: Callable[[], AbstractAsyncContextManager[AnyConnection]]) -> None:
        self._connection = connection
        self._waiting: list[tuple[Options, str, asyncio.Future[int]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def enqueue(self, what: Options, payload: str) -> int:
        """Enqueue a job without a key and return its id."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((what, payload, done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="enqueue")
        return await done

    async def _write(self) -> None:
        """Write until nobody waits; what arrives while a statement runs makes up the next one."""
        try:
            async with self._connection() as connection:
                while self._waiting:
                    batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                    groups = defaultdict(list)
                    for what, payload, done in batch:
                        groups[what].append((payload, done))
                    for what, calls in groups.items():
                        await _write_group(connection, what, calls)
                self._writer = None  # the next caller need not wait for this connection to be given back
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
            waiting, self._waiting, self._writer = self._waiting, [], None
            for _, _, done in waiting:
                _settle(done, error)


async def _write_group(connection: AnyConnection, what: Options, calls: list[tuple[str, asyncio.Future[int]]]) -> None:
    try:
        ids: Iterable[int | Exception] = await many(connection, what, [payload for payload, _ in calls])
    except PayloadError as error:  # one of them cannot be stored: let each have its own answer
        ids = [await _alone(connection, what, payload) for payload, _ in calls] if len(calls) > 1 else [error]
    except Exception as error:  # noqa: BLE001 - it is the callers' to handle
        ids = [error] * len(calls)
    for (_, done), answer in zip(calls, ids, strict=True):
        _settle(done, answer)


async def _alone(connection: AnyConnection, what: Options, payload: str) -> int | Exception:
    try:
        return await one(connection, what, payload, None)
    except Exception as error:  # noqa: BLE001 - it is the caller's to handle
        return error


def _settle(done: asyncio.Future[int], answer: int | Exception) -> None:
    if done.done():
        return  # its caller was cancelled
    if isinstance(answer, Exception):
        done.set_exception(answer)
    else:
        done.set_result(answer)
