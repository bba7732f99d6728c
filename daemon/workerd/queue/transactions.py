"""What applications do in transactions of their own, whatever their driver: it holds when these commit."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from workerd.asked import Asked
from workerd.errors import JobError, TaskError, WriteUnknown
from workerd.queue import enqueue, signals
from workerd.queue.driver_errors import answered, is_raw, translated
from workerd.queue.drivers import as_text, driver_of
from workerd.queue.finish import finish, succeeded
from workerd.queue.own_transaction import rolled_back

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from workerd.job import AnyConnection, AnyTransaction
    from workerd.queue.drivers import Driver
    from workerd.queue.enqueue import Options
    from workerd.queue.finish import Finished

R = TypeVar("R")

# The arguments of `workerd.enqueue` by their types, where these are no text.
_TYPES = {
    "payload": "jsonb", "priority": "int", "run_at": "timestamptz", "max_retries": "int", "delay": "interval",
    "after": "bigint[]", "deadline": "timestamptz", "batch": "boolean",
}  # fmt: skip


def _cast(place: int, kind: str) -> str:
    """An argument, which is text for every driver, as the type that it stands for. `::` is no cast for SQLAlchemy."""
    return f"CAST(CAST(${place} AS text) AS {kind})"


_EACH = "SELECT array_agg(CAST(each AS text) ORDER BY place) FROM json_array_elements({}) WITH ORDINALITY AS list(each, place)"
_PAYLOADS = f"({_EACH.format(_cast(2, 'json'))})"
_LEASES = ["bigint", *["bigint[]"] * 5, "float8[]", "text[]", "float8[]", "real[]"]
_FINISH = f"SELECT lost_n FROM workerd.finish_succeeded({', '.join(_cast(*each) for each in enumerate(_LEASES, 1))})"  # noqa: S608
_SIGNAL = f"SELECT workerd.signal({_cast(1, 'bigint')}, {_cast(2, 'text')}, {_cast(3, 'jsonb')})"


async def enqueue_one(connection: AnyTransaction, what: Options, payload: str, key: str | None) -> int:
    """Enqueue a job and return its id, or that of the unfinished one with this key."""
    driver = driver_of(connection)
    if driver is None:
        return await _on_asyncpg(connection, lambda own: enqueue.one(own, what, payload, key))
    statement, arguments = _call("enqueue", f"payload => {_cast(2, 'jsonb')}", payload, what, key)
    rows = await _fetch(driver, connection, statement, arguments)
    job_id: int = rows[0][0]
    return job_id


async def enqueue_many(connection: AnyTransaction, what: Options, payloads: Sequence[str]) -> list[int]:
    """Enqueue one job for each payload, all or none, and return their ids in this order."""
    driver = driver_of(connection)
    if driver is None:
        return await _on_asyncpg(connection, lambda own: enqueue.many(own, what, payloads))
    enqueue.refuse_keys(what)
    if not payloads:
        return []
    statement, arguments = _call("enqueue_many", f"payloads => {_PAYLOADS}", f"[{','.join(payloads)}]", what, None)
    return [row[0] for row in await _fetch(driver, connection, statement, arguments)]


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


def _call(function: str, payload: str, text: str, what: Options, key: str | None) -> tuple[str, list[str | None]]:
    """A call with the arguments that differ from the function's defaults, and these as text."""
    options: dict[str, Any] = {
        "queue": what.queue, "priority": what.priority, "run_at": what.run_at, "max_retries": what.max_retries,
        "delay": what.delay, "key": key, **_asked(what.asked), **({} if what.trace is None else what.trace.headers),
    }  # fmt: skip
    parts, arguments = [f"task => {_cast(1, 'text')}", payload], [what.task, text]
    for name, value in options.items():
        if value is not None:
            arguments.append(as_text(value) or "")
            parts.append(f"{name} => {_cast(len(arguments), _TYPES.get(name, 'text'))}")
    if what.asked is not None and what.asked.deadline_in is not None:
        arguments.append(as_text(what.asked.deadline_in) or "")
        parts.append(f"deadline => now() + {_cast(len(arguments), 'interval')}")
    return f"SELECT workerd.{function}({', '.join(parts)})", list(arguments)


def _asked(asked: Asked | None) -> Mapping[str, Any]:
    if asked is None:
        return {}
    names = {"need": "after_need", "end": "after_end"}
    given = zip(Asked._fields, asked, strict=True)
    plain = Asked()._asdict()
    return {names.get(name, name): value for name, value in given if value != plain[name] and name != "deadline_in"}
