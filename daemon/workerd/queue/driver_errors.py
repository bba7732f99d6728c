"""Errors of database drivers as the library's own: none leaves it raw, and the driver's is the cause of ours.

Every driver says by SQLSTATE what the server meant, so one table serves all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from workerd.error_text import message_of
from workerd.errors import (
    DatabaseError,
    JobError,
    PayloadError,
    TaskError,
    TransactionConflict,
    WorkerdError,
    WriteUnknown,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

R = TypeVar("R")

RAW = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)  # what asyncpg raises

_DRIVERS = frozenset({"asyncpg", "psycopg", "psycopg2", "sqlalchemy", "django"})
_NO_QUEUE = ("42883", "42P01", "3F000")  # no such function, table, schema
_REFUSED_DATA = ("22", "23514", "54")  # of a wrong type or size; against a check; beyond a limit of the server
_WRONG_TRANSACTION = "25000"  # of an isolation level that the call cannot work in
_LOST = ("08", "57P")  # the connection ended, the server ended the session


async def answered(query: Awaitable[R]) -> R:
    """Await a query of an application; whatever the driver raises becomes one of our errors, in one line."""
    try:
        return await query
    except RAW as error:
        raise translated(error) from error


def translated(error: BaseException) -> WorkerdError:
    """What an error of a driver means to the caller of the library."""
    state, text = sqlstate(error), message_of(error)
    if state is None:
        if _was_sent(error):
            return WriteUnknown(text)
        return DatabaseError(f"the database did not do it: {text}")
    if state.startswith(_REFUSED_DATA):
        return PayloadError(text)
    if state == _WRONG_TRANSACTION:
        return TaskError(text)
    if state.startswith("40"):
        return TransactionConflict(f"another transaction was in the way: {text} (run the transaction again)")
    if state.startswith(_LOST) or getattr(error, "severity", None) in ("FATAL", "PANIC"):
        return WriteUnknown(text)
    if state in _NO_QUEUE:
        return DatabaseError("the database has no queue yet: start a daemon or run `workerctl db upgrade`")
    if state == "P0002":  # no data found
        return JobError(text)
    return DatabaseError(f"the database did not do it: {text}")


def is_raw(error: BaseException) -> bool:
    """Whether a driver has raised this."""
    return any(kind.__module__.partition(".")[0] in _DRIVERS for kind in type(error).__mro__)


def sqlstate(error: BaseException) -> str | None:
    """The server's code for it; None for what a driver says of itself. SQLAlchemy and Django wrap the errors of their drivers."""
    seen: BaseException | None = error
    for _ in range(4):
        if seen is None:
            break
        state: Any = getattr(seen, "sqlstate", None) or getattr(seen, "pgcode", None)
        if isinstance(state, str):
            return state
        seen = getattr(seen, "orig", None) or seen.__cause__
    return None


def _was_sent(error: BaseException) -> bool:
    """asyncpg refuses by an InterfaceError what it does not send at all."""
    return not isinstance(error, asyncpg.InterfaceError)
