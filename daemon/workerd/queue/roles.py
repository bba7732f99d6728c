"""Roles: group roles of the server that may enqueue, work, operate or read, and no more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from workerd.errors import ConfigError, SchemaError
from workerd.queue.schema import files

if TYPE_CHECKING:
    from workerd.job import AnyConnection

ROLES = {
    "enqueue": "enqueues jobs and answers those that wait; reads no payload",
    "work": "runs daemons",
    "operate": "enqueues, reads, retries, cancels and deletes jobs, pauses and limits queues, orders nodes",
    "read": "reads everything, payloads and results too",
}
_MEMBERS = (("enqueue", "work"), ("enqueue", "operate"), ("read", "operate"))  # the second may what the first may
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,50}")

_MAKE = """DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} NOLOGIN; END IF;
END $$;"""
_JOIN = """DO $$ BEGIN
    IF NOT pg_has_role('{member}', '{role}', 'MEMBER') THEN GRANT {role} TO {member}; END IF;
END $$;"""
_THERE = "SELECT rolname FROM pg_roles WHERE rolname = ANY ($1)"
_GRANTED = """
    SELECT prefix FROM (
        SELECT r.rolname, (regexp_match(r.rolname, '^([a-z_][a-z0-9_]*)_(enqueue|work|operate|read)$'))[1] AS prefix
        FROM pg_namespace n, aclexplode(n.nspacl) a JOIN pg_roles r ON r.oid = a.grantee
        WHERE n.nspname = 'workerd' AND a.privilege_type = 'USAGE') AS g
    WHERE prefix IS NOT NULL GROUP BY prefix HAVING count(*) = 4 ORDER BY prefix
"""


def names(prefix: str) -> dict[str, str]:
    """The four roles by what they may do. Raises ConfigError for a prefix that would have to be quoted."""
    if not _NAME.fullmatch(prefix):
        raise ConfigError(
            f"--prefix is {prefix!r}, allowed are up to 51 lower-case letters, digits and _, no digit first"
        )
    return {role: f"{prefix}_{role}" for role in ROLES}


def statements(prefix: str) -> str:
    """What makes the roles that are not there, and grants. Raises ConfigError."""
    known = names(prefix)
    made = [_MAKE.format(role=name) for name in known.values()]
    joined = [_JOIN.format(role=known[role], member=known[member]) for role, member in _MEMBERS]
    return "\n".join([*made, *joined, grants(prefix)])


def grants(prefix: str) -> str:
    """What gives the roles all that they may do."""
    return files.read("roles.sql").replace("{prefix}", prefix)


async def create(connection: AnyConnection, prefix: str) -> list[str]:
    """Make those of the four roles that are not there, and grant; returns the names of the new ones.

    The schema has to be that of this program. Raises SchemaError when the role of the connection may not do it, ConfigError.
    """
    import asyncpg

    wanted = list(names(prefix).values())
    there = {row["rolname"] for row in await connection.fetch(_THERE, wanted)}
    try:
        await connection.execute(statements(prefix))
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaError(
            f"this role may not do it: {error} (the owner of the schema with CREATEROLE may, or a superuser: give one what --print says)"
        ) from error
    return [name for name in wanted if name not in there]


async def granted(connection: AnyConnection) -> list[str]:
    """The prefixes of the roles that may use the schema."""
    return [row["prefix"] for row in await connection.fetch(_GRANTED)]


async def grant_again(connection: AnyConnection, prefixes: list[str]) -> None:
    """Give roles what they may do with a schema that has changed."""
    for prefix in prefixes:
        await connection.execute(grants(prefix))
