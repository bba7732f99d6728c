"""What applications do in transactions of their own, whatever their driver: it holds when these commit."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from workerd import trace
from workerd.errors import JobError, TaskError, WriteUnknown
from workerd.queue import enqueue as enqueues
from workerd.queue import producer, signals
from workerd.queue.driver_errors import answered, is_raw, translated
from workerd.queue.drivers import as_text, driver_of
from workerd.queue.finish import finish, succeeded
from workerd.queue.own_transaction import rolled_back

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from workerd.asked import EnqueueOptions, JobOptions
    from workerd.job import AnyConnection, AnyTransaction
    from workerd.queue.drivers import Driver
    from workerd.queue.finish import Finished
    from workerd.tasks import Task

R = TypeVar("R")


def _cast(place: int, kind: str) -> str:
    """An argument, which is text for every driver, as the type that it stands for. `::` is no cast for SQLAlchemy."""
    return f"CAST(CAST(${place} AS text) AS {kind})"


_EACH = "SELECT array_agg(CAST(each AS text) ORDER BY place) FROM json_array_elements({}) WITH ORDINALITY AS list(each, place)"
_PAYLOADS = f"({_EACH.format(_cast(2, 'json'))})"
_LEASES = ["bigint", *["bigint[]"] * 5, "float8[]", "text[]", "float8[]", "real[]"]
_FINISH = f"SELECT lost_n FROM workerd.finish_succeeded({', '.join(_cast(*each) for each in enumerate(_LEASES, 1))})"  # noqa: S608
_SIGNAL = f"SELECT workerd.signal({_cast(1, 'bigint')}, {_cast(2, 'text')}, {_cast(3, 'jsonb')})"


async def enqueue(
    task: str | Task[..., Any],
    payload: Mapping[str, Any] | None = None,
    *,
    connection: AnyTransaction,
    **options: Unpack[EnqueueOptions],
) -> int:
    """Enqueue in the transaction of the connection, for which no `Queue` is needed; as `Queue.enqueue`."""
    what = enqueues.options(task, options)
    text = enqueues.payload_text(task, {} if payload is None else payload)
    if trace.current() is not None:
        return await producer.traced(what, lambda traced: _enqueue(connection, traced, text))
    return await _enqueue(connection, what, text)


async def _enqueue(connection: AnyTransaction, what: JobOptions, payload: str) -> int:
    driver = driver_of(connection)
    if driver is None:
        return await _on_asyncpg(connection, lambda own: enqueues.one(own, what, payload))
    job_id: int = (await _call(driver, connection, "enqueue", f"payload => {_cast(2, 'jsonb')}", payload, what))[0][0]
    return job_id


async def enqueue_many(connection: AnyTransaction, what: JobOptions, payloads: Sequence[str]) -> list[int]:
    """Enqueue one job for each payload, all or none, and return their ids in this order."""
    driver = driver_of(connection)
    if driver is None:
        return await _on_asyncpg(connection, lambda own: enqueues.many(own, what, payloads))
    enqueues.refuse_keys(what)
    if not payloads:
        return []
    listed = f"[{','.join(payloads)}]"
    rows = await _call(driver, connection, "enqueue_many", f"payloads => {_PAYLOADS}", listed, what)
    return [row[0] for row in rows]


async def signal(connection: AnyTransaction, job_id: int, event: str, payload: str) -> bool:
    """Answer a job; False when this event was answered before."""
    driver = driver_of(connection)
    if driver is None:
        return await _on_asyncpg(connection, lambda own: answered(signals.send(own, job_id, event, payload)))
    rows = await _fetch(driver, connection, _SIGNAL, [str(job_id), event, payload])
    return bool(rows[0][0])


def refuse_without(connection: AnyTransaction) -> None:
    """Raise JobError unless the connection is in a transaction."""
    driver = driver_of(connection)
    is_open = connection.is_in_transaction() if driver is None else driver.in_transaction(connection)  # type: ignore[union-attr]
    if not is_open:
        raise JobError(
            "finish_in needs an open transaction: use `async with connection.transaction():` or what your driver has"
        )


async def finish_one(connection: AnyTransaction, end: Finished) -> bool:
    """Write a success; False when its lease does not hold it any more."""
    driver = driver_of(connection)
    if driver is None:
        return (await _on_asyncpg(connection, lambda own: answered(finish(own, end.job.node, [end]))))[0]
    arguments = [as_text(value) for value in (end.job.node, *succeeded([end]))]
    rows = await _fetch(driver, connection, _FINISH, arguments)
    return not rows[0][0]


def without_loop(work: Coroutine[Any, Any, Any], connection: AnyTransaction) -> Any:
    """The result of one of these on a synchronous connection, where there is nothing to wait for. Raises TaskError for another one."""
    with closing(work):
        driver = driver_of(connection)
        if driver is None or driver.is_async:
            raise TaskError("this connection is asynchronous: use it on its loop, with `Queue` or `await task.enqueue`")
        try:
            work.send(None)
        except StopIteration as done:
            return done.value
    raise AssertionError("a synchronous driver waits for nothing")


async def _on_asyncpg(connection: Any, work: Callable[[AnyConnection], Awaitable[R]]) -> R:
    """What `work`, whose errors are ours, returns. The caller's transaction is lost with the connection, which leaves nothing open."""
    open_ = connection.is_in_transaction()
    try:
        return await work(connection)
    except WriteUnknown as error:
        if not open_:
            raise
        raise rolled_back(error) from error.__cause__


async def _fetch(driver: Driver, connection: AnyTransaction, statement: str, arguments: Sequence[str | None]) -> Any:
    open_ = driver.in_transaction(connection)
    try:
        rows = driver.fetch(connection, statement, arguments)
        return await rows if driver.is_async else rows
    except Exception as error:
        if not is_raw(error):
            raise
        ours = translated(error)
        raise (rolled_back(ours) if open_ else ours) from error


async def _call(
    driver: Driver, connection: AnyTransaction, function: str, payload: str, written: str, what: JobOptions
) -> Any:
    statement, values = enqueues.call(function, payload, written, what, _cast)
    return await _fetch(driver, connection, statement, [as_text(value) for value in values])
