"""Connections to PostgreSQL: made in one way, failing with one line."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg

from workerd.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    Connection = asyncpg.Connection[asyncpg.Record]

CONNECT_TIMEOUT = 10.0  # seconds
COMMAND_TIMEOUT = 60.0  # seconds; a query of ours that takes longer is given up and the connection rebuilt

# The session of a claimer: each statement is planned once, as an index scan (see migrations/0003_cycle.sql), and a lane that another
# session keeps locked is not waited for.
CLAIMS = {
    "plan_cache_mode": "force_generic_plan", "jit": "off", "enable_seqscan": "off", "enable_bitmapscan": "off", "lock_timeout": "1s",
}  # fmt: skip

UNREADABLE = "(unreadable address)"

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
    dsn: str, name: str = "worker", *, pooled: bool = False, claims: bool = False, timeout: float = CONNECT_TIMEOUT
) -> Connection:
    """Open a connection whose `application_name` is `name`.

    `claims`: it is the one of a claimer, which bounds its queries itself, since a timer for each is dear.
    `pooled`: the other end is a transaction pooler, so no prepared statement outlives a transaction.
    Raises DatabaseError when the server cannot be reached or refuses.
    """
    try:
        options = connect_options(name, pooled=pooled)
        if claims:
            options["server_settings"].update(CLAIMS)
        limit = None if claims else COMMAND_TIMEOUT
        return await asyncpg.connect(dsn, timeout=timeout, command_timeout=limit, **options)
    except (*CONNECTION_ERRORS, asyncpg.PostgresError, ValueError, OverflowError) as error:
        raise DatabaseError(explain(dsn, error)) from error


def connect_options(name: str, *, pooled: bool = False) -> dict[str, Any]:
    """The keywords that each of our connections and pools gets. Claims need READ COMMITTED, whatever the role's default."""
    if pooled:  # a pooler refuses other settings
        return {"server_settings": {"application_name": name}, "statement_cache_size": 0}
    return {"server_settings": {"application_name": name, "default_transaction_isolation": "read committed"}}


def explain(dsn: str, error: BaseException) -> str:
    """One line for an operator: which server, what it said, what to do. Never the password."""
    where = location(dsn)
    if where == UNREADABLE:
        return (
            "DATABASE_URL cannot be read as an address (special characters of its password have to be percent-encoded)"
        )
    if isinstance(error, (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
        return f"the database at {where} refused the login: {error} (check user and password in DATABASE_URL)"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return f"the server at {where} has no such database: {error} (create it, or correct DATABASE_URL)"
    if isinstance(error, (ValueError, OverflowError, asyncpg.ClientConfigurationError)):
        return f"DATABASE_URL cannot be used: {error}"
    if isinstance(error, TimeoutError):
        return f"the database at {where} did not answer in time (is it running, is the address right?)"
    text = re.sub(r"\s+", " ", str(error)) or type(error).__name__
    return f"the database at {where} cannot be reached: {text} (is it running, is DATABASE_URL right?)"


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
