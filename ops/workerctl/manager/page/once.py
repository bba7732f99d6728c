"""The one-time login address that a manager prints on a terminal, and the token that it stands for."""

from __future__ import annotations

import contextlib
import hmac
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from workerd.errors import ConfigError, DatabaseError
from workerd.queue import tokens
from workerd.queue.database import CONNECTION_ERRORS

if TYPE_CHECKING:
    from workerd.queue.client import Queue


class Once:
    """Of one process: whoever comes first with the secret gets a token, which ends with the process."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._secret: str | None = None
        self._name: str | None = None

    def offer(self) -> str:
        """The path to log in by."""
        self._secret = secrets.token_urlsafe(24)
        return f"/login/{self._secret}"

    async def take(self, given: str) -> str | None:
        """A token, the first time that the secret is given."""
        if self._secret is None or not hmac.compare_digest(given.encode(), self._secret.encode()):
            return None
        self._secret = None
        self._name = f"terminal {datetime.now(UTC):%Y-%m-%d %H:%M:%S} {secrets.token_hex(2)}"
        async with self._queue.connection() as connection:
            return await tokens.create(connection, self._name, ["operate"])

    async def close(self) -> None:
        """Revoke it."""
        if self._name is not None:
            with contextlib.suppress(
                DatabaseError, ConfigError, *CONNECTION_ERRORS
            ):  # it is away, or somebody was quicker
                async with self._queue.connection() as connection:
                    await tokens.revoke(connection, self._name)
