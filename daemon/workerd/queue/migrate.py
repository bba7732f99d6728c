"""The schema `workerd`: made at once, upgraded by numbered migrations, functions and views applied again where they differ.

Whoever starts first does it, under a lock, beside a fleet that works. `workerctl --version` asks for the latest number: the driver is
imported where something is applied.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING

import workerd
from workerd.errors import SchemaError
from workerd.queue import roles
from workerd.queue.schema import files

if TYPE_CHECKING:
    from workerd.job import AnyConnection

LOCK = 0x776F726B657264  # the advisory lock of migrations: "workerd" in hexadecimal
BASELINE = 21  # the version of tables.sql before any migration; earlier ones were never released
ENCODINGS = ("UTF8", "SQL_ASCII")  # of databases; the second takes any text
UTF8 = "make another one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
PATIENCE = 30.0  # seconds for which one part is tried while others hold what it needs
_PAUSE = 0.5  # seconds between two tries, in which those who queued up behind the first one go on
_LONGEST = 86400.0  # seconds that one part may take: where it takes long it hinders nobody

_MARK = re.compile(r"^-- part( outside of a transaction)?: (.+)\n", re.MULTILINE)
# While a lock is waited for all who come later wait behind it, unless it is one that hinders no reader or writer: the only
# kind that is taken outside of a transaction.
_BRIEFLY = "SET LOCAL lock_timeout = '100ms'"
_CALMLY = "SET lock_timeout = '10s'"
BOOKS = """
    CREATE SCHEMA IF NOT EXISTS workerd;
    CREATE TABLE IF NOT EXISTS workerd.migration (
        version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE IF NOT EXISTS workerd.migration_part (version int, part int, PRIMARY KEY (version, part));
    CREATE TABLE IF NOT EXISTS workerd.repeatable (
        one boolean PRIMARY KEY DEFAULT true CHECK (one), digest text NOT NULL, program text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now())
"""
_APPLIED = "SELECT digest, program FROM workerd.repeatable"
_HOLDER = """
    SELECT format('%s, process %s, holds a table since %s',
        coalesce(nullif(application_name, ''), backend_type), pid, date_trunc('second', xact_start))
    FROM pg_stat_activity a
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND EXISTS (
        SELECT FROM pg_locks k JOIN pg_class c ON c.oid = k.relation
        WHERE k.pid = a.pid AND k.granted AND c.relnamespace = 'workerd'::regnamespace)
    ORDER BY xact_start LIMIT 1
"""


@dataclass(frozen=True)
class Part:
    """What is applied at once. Outside of a transaction: one statement after the other, and all of them again when one fails."""

    number: int
    title: str
    sql: str = field(repr=False)
    in_transaction: bool = True


@dataclass(frozen=True)
class Migration:
    """What brings the schema to a version, in parts."""

    version: int
    name: str
    parts: tuple[Part, ...] = field(repr=False)

    def record(self, part: Part) -> str:
        """The statements that remember that a part is done; after the last one the migration is."""
        if part is not self.parts[-1]:
            return f"INSERT INTO workerd.migration_part (version, part) VALUES ({self.version}, {part.number})"  # noqa: S608 - ours
        return (
            f"DELETE FROM workerd.migration_part WHERE version = {self.version};\n"  # noqa: S608 - ours
            f"INSERT INTO workerd.migration (version, name) VALUES ({self.version}, '{self.name}')"
        )


class Functions(Migration):
    """The functions and views of this program, which take the place of those that are there."""

    def record(self, _part: Part) -> str:
        return (
            "INSERT INTO workerd.repeatable (digest, program) "  # noqa: S608 - ours
            f"VALUES ('{files.digest()}', '{workerd.__version__}') "
            "ON CONFLICT (one) DO UPDATE SET digest = excluded.digest, program = excluded.program, applied_at = now()"
        )


def known() -> list[Migration]:
    """The migrations of this program, oldest first: from the baseline on."""
    return [Migration(number, name, parse(text)) for number, name, text in files.numbered()]


def installation() -> list[Migration]:
    """What makes the schema in an empty database: the tables as they are after all migrations."""
    parts = (Part(1, "types, tables and indexes", files.tables()),)
    return [Migration(latest(), "tables", parts), functions()]


def functions() -> Functions:
    return Functions(latest(), "functions", (Part(1, "functions and views", files.repeatable()),))


def parse(text: str) -> tuple[Part, ...]:
    """The parts of a file; what stands before the first mark is a comment. Without a mark the whole is one part."""
    head, *rest = _MARK.split(text)
    if not rest:
        return (Part(1, "", head.strip()),)
    found = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    return tuple(Part(n, title, sql.strip(), not outside) for n, (outside, title, sql) in enumerate(found, 1))


def latest() -> int:
    """The schema's version that this program needs."""
    return max((each.version for each in known()), default=BASELINE)


async def current(connection: AnyConnection) -> int:
    """The version of the schema in the database; 0 when there is none. Raises SchemaError where it could not store all texts."""
    refuse_encoding(connection.get_settings().server_encoding)
    if await connection.fetchval("SELECT to_regclass('workerd.migration') IS NULL"):
        return 0
    version: int = await connection.fetchval("SELECT coalesce(max(version), 0) FROM workerd.migration")
    return version


async def pending(connection: AnyConnection) -> list[Migration]:
    """What the database has not seen, without the parts that it has. Raises SchemaError when it is newer, or older than any release."""
    version = await current(connection)
    check(version)
    if not version:
        return installation()
    rows = await connection.fetch("SELECT version, part FROM workerd.migration_part")
    done = {tuple(row) for row in rows}
    todo = [m for m in known() if m.version > version]
    todo = [replace(m, parts=tuple(p for p in m.parts if (m.version, p.number) not in done)) for m in todo]
    return [*todo, functions()] if todo or await _is_replaced(connection) else []


async def _is_replaced(connection: AnyConnection) -> bool:
    """Whether functions and views are to be applied again; a newer program's stay."""
    applied = await connection.fetchrow(_APPLIED)
    return applied is None or (
        applied["digest"] != files.digest() and _release(applied["program"]) <= _release(workerd.__version__)
    )


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def refuse_encoding(encoding: str) -> None:
    """Raise SchemaError for a database whose encoding lacks characters that payloads, results and errors may have."""
    if encoding not in ENCODINGS:
        raise SchemaError(
            f"the encoding of the database is {encoding}, which lacks characters that jobs may carry: {UTF8}"
        )


def check(version: int) -> None:
    """Raise SchemaError when a schema of this version was made by a newer program, or by one before the first release."""
    if 0 < version < BASELINE:
        raise SchemaError(
            f"the schema of the database has version {version}, from before the first release, and cannot be upgraded: "
            "let the program that made it finish its jobs, then DROP SCHEMA workerd CASCADE and start again"
        )
    if version > latest():
        raise SchemaError(
            f"the database has schema version {version}, this program knows {latest()}: upgrade workerd on this host"
        )


async def install(connection: AnyConnection) -> None:
    """Make the schema within the caller's transaction, in a database that has none."""
    await connection.execute(BOOKS)
    for migration in installation():
        for part in migration.parts:
            await connection.execute(f"{part.sql};\n{migration.record(part)}")
    await connection.execute("SET LOCAL check_function_bodies = on")


def script(todo: list[Migration], prefixes: list[str]) -> str:
    """What `upgrade` does, as a script for psql; `prefixes`: of the roles that may use the schema."""
    lines = [
        "\\set ON_ERROR_STOP on",
        f"DO $$ BEGIN IF NOT pg_try_advisory_lock({LOCK}) THEN RAISE 'another upgrade is running'; END IF; END $$;",
        f"{BOOKS.strip()};",
    ]
    for migration in todo:
        for part in migration.parts:
            done = f"{migration.record(part)};"
            lines.append(f"\n-- {migration.version} {migration.name} {part.title}".rstrip())
            if part.in_transaction:
                lines += ["BEGIN;", f"{_BRIEFLY};", part.sql, done, "COMMIT;"]
            else:
                lines += [f"{_CALMLY};", part.sql, done]
    for prefix in prefixes:
        lines += [f"\n-- what the roles {prefix}_* may do", "BEGIN;", roles.grants(prefix), "COMMIT;"]
    return "\n".join([*lines, f"\nSELECT pg_advisory_unlock({LOCK});"])


async def upgrade(connection: AnyConnection, *, patience: float = PATIENCE) -> list[Migration]:
    """Apply what is pending, part by part, and return it.

    A part that meets a lock gives way at once and is tried again for `patience` seconds. Raises SchemaError when that was not
    enough, when a row contradicts a new check, when the schema is newer than this program or the role may not change it.
    """
    import asyncio

    import asyncpg

    if not await pending(connection):
        return []
    # asked for again and again: a session that waits for it within the server would hold up a concurrent build of an index
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):  # noqa: ASYNC110
        await asyncio.sleep(_PAUSE / 10)
    try:
        todo = await pending(connection)
        if todo:
            await connection.execute(BOOKS)
        for migration in todo:
            for part in migration.parts:
                await _apply_patiently(connection, migration, part, patience)
        if todo:
            await roles.grant_again(connection, await roles.granted(connection))
        return todo
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaError(
            f"the schema cannot be upgraded by this role: {error} (run `workerctl db upgrade` as its owner)"
        ) from error
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)


async def _apply_patiently(connection: AnyConnection, migration: Migration, part: Part, patience: float) -> None:
    import asyncio

    import asyncpg

    end = monotonic() + patience
    while True:
        try:
            return await _apply(connection, migration, part)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.CheckViolationError) as error:
            if monotonic() > end:
                reason = await connection.fetchval(_HOLDER) if error.sqlstate != "23514" else None
                raise SchemaError(
                    f"migration {migration.version} {migration.name}, {part.title or 'its only part'}: {reason or error};"
                    " when that is over run `workerctl db upgrade`, which goes on from here"
                ) from error
        await asyncio.sleep(_PAUSE)


async def _apply(connection: AnyConnection, migration: Migration, part: Part) -> None:
    if part.in_transaction:
        async with connection.transaction():
            await connection.execute(_BRIEFLY)
            await connection.execute(part.sql, timeout=_LONGEST)
            await connection.execute(migration.record(part))
        return
    await connection.execute(_CALMLY)
    try:
        for statement in part.sql.split(";\n"):
            await connection.execute(statement, timeout=_LONGEST)
    finally:
        await connection.execute("RESET lock_timeout")
    await connection.execute(migration.record(part))
