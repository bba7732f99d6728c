"""Connections to PostgreSQL: made in one way, failing with one line."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from workerd.error_text import message_of
from workerd.errors import DatabaseError
from workerd.queue.sockets import remember

if TYPE_CHECKING:
    from collections.abc import Iterator

    Connection = asyncpg.Connection[asyncpg.Record]

CONNECT_TIMEOUT = 10.0  # seconds
PATIENCE_CONNECTING = 5.0  # seconds for a try of a daemon: packets that are dropped are sent again ever more rarely
COMMAND_TIMEOUT = 60.0  # seconds; a query of ours that takes longer is given up and the connection rebuilt

# The session of a claimer: each statement is planned once, as an index scan (see schema/functions/cycle.sql), and a lane that another
# session keeps locked is not waited for.
CLAIMS = {
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "lock_timeout": "1s",
}

# How soon a server ends the session of a host that has vanished, and with it the locks of that session.
SERVER_KEEPALIVE = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",
}

UNREADABLE = "(unreadable address)"
POOLER = (
    "a pooler stands before the database at {where}: give the server's own address in DATABASE_DIRECT_URL, "
    "since sessions that listen and hold locks cannot go through it"
)
POOLED = (
    "a pooler stands before the database at {where}: connect with pooled=True, or leave the address out "
    "and give the server's own in DATABASE_DIRECT_URL"
)

# What a lost, refused or failing connection raises, as against a mistake in a statement.
CONNECTION_ERRORS = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.InternalClientError,
    asyncpg.ReadOnlySQLTransactionError,
)


async def connect(
    dsn: str,
    name: str = "worker",
    *,
    pooled: bool = False,
    claims: bool = False,
    timeout: float = CONNECT_TIMEOUT,
    command_timeout: float = COMMAND_TIMEOUT,
) -> Connection:
    """Open a connection whose `application_name` is `name`.

    `claims`: it is the one of a claimer, which bounds its queries itself, since a timer for each is dear.
    `pooled`: the other end is a transaction pooler, so no prepared statement outlives a transaction.
    Raises DatabaseError when the server cannot be reached or refuses.
    """
    try:
        options = connect_options(name, pooled=pooled, claims=claims)
        limit = None if claims else command_timeout
        return await open_any(dsn, timeout=timeout, command_timeout=limit, **options)
    except (*CONNECTION_ERRORS, asyncpg.PostgresError, ValueError, OverflowError) as error:
        raise DatabaseError(explain(dsn, error)) from error


def connect_options(name: str, *, pooled: bool = False, claims: bool = False) -> dict[str, Any]:
    """The keywords that each of our connections and pools gets. Claims need READ COMMITTED, whatever the role's default."""
    if pooled:  # a pooler refuses other settings
        return {"server_settings": {"application_name": name}, "statement_cache_size": 0}
    settings = {"application_name": name, "default_transaction_isolation": "read committed", **SERVER_KEEPALIVE}
    if claims:
        return {"server_settings": {**settings, **CLAIMS}, "target_session_attrs": "read-write"}
    return {"server_settings": settings}


async def open_any(dsn: str | None = None, **options: Any) -> Connection:
    """Open a connection to the host of the DSN, or, of several, to that which takes writes and answers first: one may have vanished."""
    addresses = each_host(dsn) if dsn is not None else []
    if len(addresses) < 2:
        only: Connection = await asyncpg.connect(dsn, **options)
        return remember(only)
    options["target_session_attrs"] = "read-write"
    tries = [asyncio.ensure_future(asyncpg.connect(address, **options)) for address in addresses]
    try:
        for first in asyncio.as_completed(tries):
            with contextlib.suppress(*CONNECTION_ERRORS, asyncpg.PostgresError):
                winner = await first
                break
        else:
            # what a server said is worth more than that another one could not be reached
            raise min((t.exception() for t in tries), key=lambda e: isinstance(e, OSError)) or OSError(dsn)
    finally:
        for each in tries:
            each.cancel()
        opened = await asyncio.gather(*tries, return_exceptions=True)
    for other in opened:
        if isinstance(other, asyncpg.Connection) and other is not winner:
            other.terminate()
    chosen: Connection = winner
    return remember(chosen)


def each_host(dsn: str) -> list[str]:
    """The DSN with one host at a time."""
    try:
        url = urlsplit(dsn)
    except ValueError:
        return [dsn]
    user, mark, hosts = url.netloc.rpartition("@")
    return [urlunsplit(url._replace(netloc=f"{user}{mark}{host}")) for host in hosts.split(",")]


async def host_in_use(connection: Connection, dsn: str) -> str:
    """Host, port and database for people: of several hosts, the address of the one that was chosen."""
    if len(each_host(dsn)) == 1:
        return location(dsn)
    where: str = await connection.fetchval(
        "SELECT coalesce(host(inet_server_addr()) || ':' || inet_server_port(), 'local') || '/' || current_database()"
    )
    return where


async def refuse_pooler(connection: Connection, dsn: str) -> None:
    """Raise DatabaseError when another session than the one that was opened answers: then a pooler hands them out."""
    if await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid():
        raise DatabaseError(POOLER.format(where=location(dsn)))


def is_there(error: BaseException) -> bool:
    """Whether the error shows a server that cannot let us in yet: it starts, is a standby still, or has no connection left."""
    cause = error.__cause__ if isinstance(error, DatabaseError) else error
    return isinstance(
        cause, (asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched, asyncpg.TooManyConnectionsError)
    )


def state_of(error: BaseException) -> str:
    """What `status` calls the trouble: a word of docs/database.md."""
    match error.__cause__ if isinstance(error, DatabaseError) else error:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return "refused"
        case asyncpg.ReadOnlySQLTransactionError() | asyncpg.TargetServerAttributeNotMatched():
            return "read-only"
        case asyncpg.DiskFullError():
            return "disk full"
    return "reconnecting"


def explain(dsn: str, error: BaseException, pooler: str = POOLER) -> str:
    """One line for an operator: which server, what it said, what to do. Never the password. `pooler`: what to do about one."""
    where = location(dsn)
    if where == UNREADABLE:
        return (
            "DATABASE_URL cannot be read as an address (special characters of its password have to be percent-encoded)"
        )
    if isinstance(error, (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
        return f"the database at {where} refused the login: {error} (check user and password in DATABASE_URL)"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return f"the server at {where} has no such database: {error} (create it, or correct DATABASE_URL)"
    if "unsupported startup parameter" in str(error):
        return pooler.format(where=where)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return f"the database at {where} is read-only: it is a standby, or its default_transaction_read_only is on"
    if isinstance(error, (ValueError, OverflowError, asyncpg.ClientConfigurationError)):
        return f"DATABASE_URL cannot be used: {error}"
    if isinstance(error, TimeoutError):
        return f"the database at {where} did not answer in time (is it running, is the address right?)"
    return f"the database at {where} cannot be reached: {message_of(error)} (is it running, is DATABASE_URL right?)"


def location(dsn: str) -> str:
    """Host, port and database of a DSN, for people: no user, no password."""
    return "".join(_location(dsn))


def _location(dsn: str) -> Iterator[str]:
    try:
        url = urlsplit(dsn)
        hosts = url.netloc.rpartition("@")[2]
        query = dict(part.partition("=")[::2] for part in url.query.split("&"))
    except ValueError:
        yield UNREADABLE
        return
    if ":" in url.netloc and "@" not in url.netloc and "@" in dsn:  # not host and port, but user and password
        yield UNREADABLE
        return
    if not hosts:
        from urllib.parse import unquote

        hosts = unquote(query.get("host", "")) or "localhost"
    yield hosts
    yield url.path
