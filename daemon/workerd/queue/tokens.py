"""Tokens with which programs and people come to the manager. What is kept is a hash: who reads the table cannot use them."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from workerd import codec
from workerd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.job import AnyConnection

SCOPES = {
    "read": "sees everything but what sensitive tasks carry",
    "operate": "reads; enqueues, retries, cancels and deletes jobs, pauses queues and schedules, orders nodes",
    "work": "runs jobs as a node, and enqueues",
}
PREFIX = "wkd_"  # scanners for secrets know a token by it

_CREATE = "INSERT INTO workerd.token (name, hash, scopes) VALUES ($1, $2, $3)"
_ALL = "SELECT id, name, hash, scopes, revoked_at IS NOT NULL AS revoked FROM workerd.token ORDER BY id"
_LIST = (
    "SELECT name, scopes, created_at, used_at, revoked_at FROM workerd.token WHERE $1 OR revoked_at IS NULL ORDER BY id"
)
_REVOKE = (
    "UPDATE workerd.token SET revoked_at = clock_timestamp() WHERE name = $1 AND revoked_at IS NULL RETURNING true"
)
_USED = "UPDATE workerd.token SET used_at = clock_timestamp() WHERE id = ANY ($1)"


@dataclass(frozen=True, slots=True)
class Token:
    id: int
    name: str
    hash: bytes
    scopes: frozenset[str]
    revoked: bool

    def may(self, scope: str) -> bool:
        return scope in self.scopes or (scope == "read" and "operate" in self.scopes)


def hashed(token: str) -> bytes:
    """SHA-256: a token has 256 random bits, so that a slow hash would protect nothing more."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


async def create(connection: AnyConnection, name: str, scopes: Sequence[str]) -> str:
    """Make a token and return it; it is not to be had a second time. Raises ConfigError."""
    unknown = sorted(set(scopes) - SCOPES.keys())
    if unknown or not scopes:
        raise ConfigError(f"--scope is {', '.join(unknown) or 'missing'}, allowed are {', '.join(SCOPES)}")
    token = PREFIX + secrets.token_urlsafe(32)
    try:
        await connection.execute(_CREATE, name, hashed(token), sorted(set(scopes)))
    except asyncpg.UniqueViolationError as error:
        raise ConfigError(f"there is a token {name} already: revoke it, or choose another name") from error
    except asyncpg.CheckViolationError as error:
        raise ConfigError("the name of a token has 1 to 100 characters") from error
    return token


async def every(connection: AnyConnection) -> list[Token]:
    """All tokens, revoked ones too."""
    rows = await connection.fetch(_ALL)
    return [Token(row["id"], row["name"], row["hash"], frozenset(row["scopes"]), row["revoked"]) for row in rows]


async def find(connection: AnyConnection, *, revoked: bool = False) -> list[dict[str, Any]]:
    """Those that are valid, with `revoked` also those that were, as JSON-ready values without hashes."""
    rows = await connection.fetch(_LIST, revoked)
    return [codec.as_json(row, "seconds") for row in rows]


async def revoke(connection: AnyConnection, name: str) -> None:
    """Let a token be valid no more. Raises ConfigError when there is none of this name."""
    if await connection.fetchval(_REVOKE, name) is None:
        raise ConfigError(f"there is no token {name} (see workerctl tokens list)")


async def used(connection: AnyConnection, ids: Sequence[int]) -> None:
    """Write down that these were used just now."""
    await connection.execute(_USED, ids)
