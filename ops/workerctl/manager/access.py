"""Who may do what: bearer tokens and their scopes."""

from __future__ import annotations

import asyncio
import hmac
import math
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from workerctl.manager.problems import Problem
from workerd.queue import tokens
from workerd.queue.tokens import Token

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from workerd.queue.client import Queue

FRESH = 1.0  # seconds within which a new token is valid everywhere, and a revoked one is not
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="workerd"'}

_bearer = HTTPBearer(auto_error=False, description="A token of `workerctl tokens create`.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


class Access:
    """The tokens, read once a second at most however many requests come."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._tokens: list[Token] = []
        self._read_at = -math.inf
        self._used: set[int] = set()
        self._reading = asyncio.Lock()

    async def check(self, given: str | None, scopes: Collection[str]) -> Token:
        """The token, if it has one of the scopes.

        Raises Problem: 401 for one that is wrong, revoked or missing, all in one way; 403 for one without the scope.
        """
        await self._refresh()
        digest = tokens.hashed(given or "")
        found: Token | None = None
        for token in self._tokens:  # all of them, so that the time tells nothing
            if hmac.compare_digest(token.hash, digest):
                found = token
        if found is None or found.revoked:
            raise Problem(401, "the token is missing or not valid: send `Authorization: Bearer …`", CHALLENGE)
        if not any(map(found.may, scopes)):
            raise Problem(403, f"the token {found.name} lacks the scope {' or '.join(scopes)}")
        self._used.add(found.id)
        return found

    def forget(self) -> None:
        """Read the tokens anew at the next request."""
        self._read_at = -math.inf

    async def _refresh(self) -> None:
        if monotonic() - self._read_at < FRESH:
            return
        async with self._reading:
            if monotonic() - self._read_at < FRESH:
                return
            used, self._used = self._used, set()
            async with self._queue.connection() as connection:
                self._tokens = await tokens.every(connection)
                if used:
                    await tokens.used(connection, list(used))
            self._read_at = monotonic()


def scope(*wanted: str) -> Callable[..., Coroutine[Any, Any, Token]]:
    """What a route depends on: the token of the request, which has to have one of these scopes."""

    async def check(request: Request, credentials: Credentials) -> Token:
        access: Access = request.app.state.access
        return await access.check(None if credentials is None else credentials.credentials, wanted)

    return check


Reader = Annotated[Token, Depends(scope("read"))]
Operator = Annotated[Token, Depends(scope("operate"))]
Watcher = Annotated[Token, Depends(scope("read", "work"))]
Worker = Annotated[Token, Depends(scope("work"))]
Enqueuer = Annotated[Token, Depends(scope("operate", "work"))]
