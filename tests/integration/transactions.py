"""Open transactions of each driver, as an application has them: committed at the end of the block, rolled back when it raises."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psycopg
import psycopg.rows
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def sqlalchemy_url(dsn: str, driver: str) -> str:
    return dsn.replace("postgresql://", f"postgresql+{driver}://", 1)


def django_database(dsn: str) -> Any:
    """`django.db.connection`, leading to this database."""
    from django.conf import settings

    if not settings.configured:
        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql"}}, USE_TZ=True)
        import django

        django.setup()
    from django.db import connection

    parts = urlsplit(dsn)
    connection.close()
    connection.settings_dict.update(NAME=parts.path[1:], USER=parts.username, HOST=parse_qs(parts.query)["host"][0])
    return connection


@contextmanager
def with_psycopg(dsn: str) -> Iterator[Any]:
    with psycopg.connect(dsn) as connection:
        yield connection


@contextmanager
def with_psycopg_of_other_rows(dsn: str) -> Iterator[Any]:
    with (
        psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as connection,
        connection.transaction(),
    ):
        yield connection


@contextmanager
def with_sqlalchemy(dsn: str) -> Iterator[Any]:
    with create_engine(sqlalchemy_url(dsn, "psycopg"), poolclass=NullPool).begin() as connection:
        yield connection


@contextmanager
def with_a_session(dsn: str) -> Iterator[Any]:
    engine = create_engine(sqlalchemy_url(dsn, "psycopg"), poolclass=NullPool)
    with Session(engine) as session, session.begin():
        yield session


@contextmanager
def with_django(dsn: str) -> Iterator[Any]:
    from django.db import transaction

    connection = django_database(dsn)
    try:
        with transaction.atomic():
            yield connection
    finally:
        connection.close()


@asynccontextmanager
async def with_asyncpg(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def with_asyncpg_of_a_pool(dsn: str) -> AsyncIterator[Any]:
    async with asyncpg.create_pool(dsn, min_size=1) as pool, pool.acquire() as connection, connection.transaction():
        yield connection


@asynccontextmanager
async def with_psycopg_async(dsn: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        yield connection


@asynccontextmanager
async def with_sqlalchemy_on_asyncpg(dsn: str) -> AsyncIterator[Any]:
    engine = create_async_engine(sqlalchemy_url(dsn, "asyncpg"), poolclass=NullPool)
    async with engine.begin() as connection:
        yield connection


@asynccontextmanager
async def with_an_async_session(dsn: str) -> AsyncIterator[Any]:
    engine = create_async_engine(sqlalchemy_url(dsn, "psycopg"), poolclass=NullPool)
    async with AsyncSession(engine) as session, session.begin():
        yield session


SYNCHRONOUS = [with_psycopg, with_psycopg_of_other_rows, with_sqlalchemy, with_a_session, with_django]
ASYNCHRONOUS = [
    with_asyncpg,
    with_asyncpg_of_a_pool,
    with_psycopg_async,
    with_sqlalchemy_on_asyncpg,
    with_an_async_session,
]


def insert(connection: Any, n: int) -> Any:
    """Write a row of the application's own; to be awaited on an asynchronous connection."""
    statement = f"INSERT INTO orders VALUES ({n:d})"  # noqa: S608 - a number
    if hasattr(connection, "in_atomic_block"):
        with connection.cursor() as cursor:
            return cursor.execute(statement)
    return connection.execute(text(statement) if "sqlalchemy" in type(connection).__module__ else statement)
