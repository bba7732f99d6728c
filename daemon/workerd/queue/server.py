"""The server: what it is set to and what its sessions do, as far as it hinders a queue."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workerd.job import AnyConnection
    from workerd.queue.database import Connection

CHANNEL = "workerd_echo"  # of which daemons hear nothing

_SERVER = """
    SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS release,
        pg_is_in_recovery() AS standby, current_setting('default_transaction_read_only')::bool AS read_only,
        current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync')::bool AS fsync,
        current_setting('full_page_writes')::bool AS full_page_writes, current_setting('autovacuum')::bool AS autovacuum,
        current_setting('track_counts')::bool AS track_counts,
        current_user AS role, current_setting('is_superuser')::bool AS superuser,
        pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all
"""
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
# A superuser is let in up to max_connections, anybody else leaves some free; a role and a database may have a limit of their own.
_HEADROOM = """
    WITH used AS (
        SELECT count(*) AS of_server, count(*) FILTER (WHERE datname = current_database()) AS of_database,
            count(*) FILTER (WHERE usename = current_user) AS of_role
        FROM pg_stat_activity WHERE backend_type IS NULL OR backend_type = 'client backend')
    SELECT name, used, most FROM used, LATERAL (VALUES
        ('max_connections of the server', of_server, current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int - coalesce(current_setting('reserved_connections', true)::int, 0)),
        ('the connection limit of the database', of_database,
            (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())),
        ('the connection limit of the role', of_role, (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user))
    ) AS l(name, used, most)
    WHERE most IS NOT NULL ORDER BY most - used LIMIT 1
"""
_TRANSACTIONS = """
    SELECT pid, coalesce(nullif(application_name, ''), usename, 'somebody') AS who, state,
        extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
    FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type <> 'autovacuum worker' AND pid <> pg_backend_pid()
        AND xact_start < clock_timestamp() - make_interval(secs => $1)
    ORDER BY xact_start
"""
_PREPARED = """
    SELECT gid, owner, extract(epoch FROM clock_timestamp() - prepared)::float8 AS seconds FROM pg_prepared_xacts
    WHERE database = current_database() AND prepared < clock_timestamp() - make_interval(secs => $1) ORDER BY prepared
"""
_SLOTS = """
    SELECT slot_name AS name, xmin IS NOT NULL OR catalog_xmin IS NOT NULL AS holds_rows,
        CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint END AS kept
    FROM pg_replication_slots
    WHERE NOT active AND NOT temporary AND (restart_lsn IS NOT NULL OR xmin IS NOT NULL OR catalog_xmin IS NOT NULL) ORDER BY slot_name
"""
_XIDS = "SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()"
_DATABASE = "SELECT current_database() || pg_postmaster_start_time()::text"
_NOTIFICATIONS = "SELECT pg_notification_queue_usage()"


@dataclass(frozen=True, slots=True)
class Server:
    version: int  # as server_version_num
    release: str  # for people
    standby: bool
    read_only: bool
    synchronous_commit: str
    fsync: bool
    full_page_writes: bool
    autovacuum: bool
    track_counts: bool
    role: str
    superuser: bool
    sees_all: bool  # what sessions of other roles do


@dataclass(frozen=True, slots=True)
class Headroom:
    """The limit on connections that is the next to be met."""

    limit: str
    used: int
    most: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """One that is open; `who` is its application or role, `state` what its session does, `seconds` its age."""

    pid: int
    who: str
    state: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared transaction."""

    gid: str
    owner: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot that nobody reads: `kept` is in bytes of WAL."""

    name: str
    holds_rows: bool
    kept: int | None


async def settings(connection: AnyConnection) -> Server:
    row = await connection.fetchrow(_SERVER)
    assert row is not None
    return Server(*row)


async def clock(connection: AnyConnection) -> float:
    """The database's time, in seconds since 1970."""
    seconds: float = await connection.fetchval(_CLOCK)
    return seconds


async def headroom(connection: AnyConnection) -> Headroom:
    row = await connection.fetchrow(_HEADROOM)
    assert row is not None
    return Headroom(*row)


async def transactions(connection: AnyConnection, older: float) -> list[Transaction]:
    """Those of this database that are open for more than so many seconds, of all roles whose sessions ours may see."""
    return [Transaction(*row) for row in await connection.fetch(_TRANSACTIONS, older)]


async def prepared(connection: AnyConnection, older: float) -> list[Prepared]:
    """Those of this database that were prepared more than so many seconds ago."""
    return [Prepared(*row) for row in await connection.fetch(_PREPARED, older)]


async def unread_slots(connection: AnyConnection) -> list[Slot]:
    """Replication slots that keep WAL or dead rows for nobody who is there."""
    return [Slot(*row) for row in await connection.fetch(_SLOTS)]


async def xid_age(connection: AnyConnection) -> int:
    """How many transactions ago the oldest rows of this database were frozen; at 2,147 million the server stops."""
    age: int = await connection.fetchval(_XIDS)
    return age


async def identity(connection: AnyConnection) -> str:
    """The same for all connections to one database of one server."""
    text: str = await connection.fetchval(_DATABASE)
    return text


async def notification_queue(connection: AnyConnection) -> float:
    """The share of the server's queue of notifications that is in use: full, commits with notifications fail."""
    share: float = await connection.fetchval(_NOTIFICATIONS)
    return share


async def notify_round_trip(listening: Connection, notifying: AnyConnection, timeout: float) -> float | None:
    """Seconds that a notification takes from one connection to another; None when it does not come."""
    heard: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    word = secrets.token_hex(8)

    def hear(_connection: object, _pid: int, _channel: str, text: object) -> None:
        if text == word and not heard.done():
            heard.set_result(monotonic())

    await listening.add_listener(CHANNEL, hear)
    try:
        began = monotonic()
        await notifying.execute("SELECT pg_notify($1, $2)", CHANNEL, word)
        return await asyncio.wait_for(heard, timeout) - began
    except TimeoutError:
        return None
    finally:
        await listening.remove_listener(CHANNEL, hear)
