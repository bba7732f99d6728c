"""Drivers of the connections in whose transactions applications enqueue: asyncpg, psycopg 3, SQLAlchemy, Django.

None of them is imported unless a connection of it comes along. Each gets its arguments as text, which the statement casts: what a driver
thinks a Python value is in PostgreSQL differs from one to the other.
"""

from __future__ import annotations

import inspect
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from workerd.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PLACE = re.compile(r"\$(\d+)")


class Driver(NamedTuple):
    """How statements are run: `fetch(connection, statement, arguments)` returns rows, or an awaitable of them.

    A statement has its arguments as `$1`, `$2`, …; `in_transaction` tells whether one is open, or opened by the next statement.
    """

    is_async: bool
    fetch: Callable[[Any, str, Sequence[str | None]], Any]
    in_transaction: Callable[[Any], bool]


def driver_of(connection: Any) -> Driver | None:
    """None for asyncpg, whose connections run the queue's own statements. Raises TaskError for a driver that is not known."""
    roots = {kind.__module__.partition(".")[0] for kind in type(connection).__mro__}
    if "asyncpg" in roots:
        return None
    if "psycopg" in roots:
        return _PSYCOPG_ASYNC if inspect.iscoroutinefunction(connection.execute) else _PSYCOPG
    if "sqlalchemy" in roots:
        return _SQLALCHEMY_ASYNC if inspect.iscoroutinefunction(connection.execute) else _SQLALCHEMY
    if "django" in roots:
        return _DJANGO
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    raise TaskError(f"connection is a {kind}, allowed are those of asyncpg, psycopg 3, SQLAlchemy and Django")


def as_text(value: Any) -> str | None:
    """A value as PostgreSQL reads it."""
    match value:
        case None:
            return None
        case datetime():
            return value.isoformat()
        case timedelta():
            return f"{value.total_seconds()} seconds"
        case list() | tuple():
            return "{" + ",".join(_element(each) for each in value) + "}"
        case _:
            return str(value)


def _element(value: Any) -> str:
    text = as_text(value)
    if text is None:
        return "NULL"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _named(statement: str, arguments: Sequence[str | None], placeholder: str) -> tuple[str, dict[str, str | None]]:
    named = {f"p{place}": argument for place, argument in enumerate(arguments, 1)}
    return _PLACE.sub(placeholder, statement), named


def _psycopg(connection: Any, statement: str, arguments: Sequence[str | None]) -> Any:
    from psycopg.rows import tuple_row

    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(*_named(statement, arguments, r"%(p\1)s"))
        return cursor.fetchall()


async def _psycopg_async(connection: Any, statement: str, arguments: Sequence[str | None]) -> Any:
    from psycopg.rows import tuple_row

    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(*_named(statement, arguments, r"%(p\1)s"))
        return await cursor.fetchall()


def _psycopg_in_transaction(connection: Any) -> bool:
    from psycopg.pq import TransactionStatus

    return not connection.autocommit or connection.info.transaction_status == TransactionStatus.INTRANS


def _sqlalchemy(connection: Any, statement: str, arguments: Sequence[str | None]) -> Any:
    from sqlalchemy import text

    sql, named = _named(statement, arguments, r":p\1")
    return connection.execute(text(sql), named).fetchall()


async def _sqlalchemy_async(connection: Any, statement: str, arguments: Sequence[str | None]) -> Any:
    from sqlalchemy import text

    sql, named = _named(statement, arguments, r":p\1")
    return (await connection.execute(text(sql), named)).fetchall()


def _sqlalchemy_in_transaction(connection: Any) -> bool:
    return bool(connection.in_transaction())


def _django(connection: Any, statement: str, arguments: Sequence[str | None]) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(*_named(statement, arguments, r"%(p\1)s"))
        return cursor.fetchall()


def _django_in_transaction(connection: Any) -> bool:
    return bool(connection.in_atomic_block) or not connection.get_autocommit()


_PSYCOPG = Driver(False, _psycopg, _psycopg_in_transaction)
_PSYCOPG_ASYNC = Driver(True, _psycopg_async, _psycopg_in_transaction)
_SQLALCHEMY = Driver(False, _sqlalchemy, _sqlalchemy_in_transaction)
_SQLALCHEMY_ASYNC = Driver(True, _sqlalchemy_async, _sqlalchemy_in_transaction)
_DJANGO = Driver(False, _django, _django_in_transaction)
