"""What stands before every request: its size, how often a client comes, and headers for browsers."""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from workerctl.manager.problems import problem

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 16_000_000  # bytes: payloads of 1 MB each, some at a time
RATE = 1000.0  # requests a second of one client, in the long run
BURST = 2000.0  # requests
CLIENTS = 10_000  # that are remembered

HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class Guards:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._buckets: OrderedDict[str, tuple[float, float]] = (
            OrderedDict()
        )  # by client: requests left, and when (monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken = 0

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        async def receive_some() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY:
                raise HTTPException(413, _too_large())
            return message

        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        refusal: Response | None = None
        if not self._admits((scope.get("client") or ("", 0))[0]):
            refusal = problem(429, f"more than {RATE:g} requests a second: come again later", {"Retry-After": "1"})
        elif length.isdigit() and int(length) > MAX_BODY:
            refusal = problem(413, _too_large())
        await (refusal or self._app)(scope, receive_some, send_with_headers)

    def _admits(self, client: str) -> bool:
        now = monotonic()
        left, at = self._buckets.pop(client, (BURST, now))
        left = min(BURST, left + (now - at) * RATE)
        self._buckets[client] = (max(0.0, left - 1), now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return left >= 1


def _too_large() -> str:
    return f"the body has more than {MAX_BODY:,} bytes: send less at a time"
