"""The caller: asks the manager, and makes of a refusal the error that the database would have raised."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from workerd import __version__
from workerd.error_text import message_of
from workerd.errors import (
    JobError,
    LaneLocked,
    ManagerError,
    NodeDead,
    NotFound,
    RequestRefused,
    TaskError,
    TokenRefused,
    WriteUnknown,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

T = TypeVar("T")

LIMIT = 15.0  # seconds for an answer
CONNECT_LIMIT = 5.0  # seconds to connect
THROTTLED = 5  # times that a request is sent again when there were too many

_REFUSALS: dict[int, type[Exception]] = {
    401: TokenRefused,
    403: TokenRefused,
    410: NodeDead,
    413: RequestRefused,
    422: RequestRefused,
    423: LaneLocked,
}
_OF_JOBS: dict[int, type[Exception]] = {
    404: NotFound,
    409: JobError,
    422: TaskError,
}  # what a client of the queue does wrong
JOBS = "/api/v1/jobs"
_UNSENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
    RuntimeError,
)
_GATEWAY = (502, 504)  # what a proxy answers when it has lost the manager, which may have done what it was asked


class _Unsaid(logging.Filter):
    """Keeps the line that httpx logs for each request out of the daemon's log, where a manager was asked: handlers may want theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        return len(arguments) < 2 or not str(arguments[1]).startswith(tuple(self.addresses))


_unsaid = _Unsaid()
logging.getLogger("httpx").addFilter(_unsaid)


class Addresses:
    """Of managers: all requests of a process go to one of them until that fails, then to the next one."""

    def __init__(self, text: str) -> None:
        """`text`: comma separated."""
        self._all = [each.strip().rstrip("/") for each in text.split(",")]
        self.current = self._all[0]
        _unsaid.addresses.update(f"{each}/" for each in self._all)

    def failed(self, address: str) -> None:
        """The next one is asked from now on, unless that is so already."""
        if address == self.current:
            self.current = self._all[(self._all.index(address) + 1) % len(self._all)]


class Caller:
    """Belongs to one loop."""

    def __init__(self, addresses: Addresses, token: str, limit: float = LIMIT, connect: float = CONNECT_LIMIT) -> None:
        self._addresses = addresses
        self._token = token
        self._limit = limit
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {token}", "User-Agent": f"workerd/{__version__}"},
            timeout=httpx.Timeout(limit, connect=connect),
            limits=httpx.Limits(max_connections=20),
        )
        self._closing: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return self._addresses.current

    def close(self) -> None:
        """Drop all connections."""
        if self._closing is None:
            with contextlib.suppress(RuntimeError):  # without a loop there is nobody who could wait
                self._closing = asyncio.ensure_future(self._client.aclose())

    async def closed(self) -> None:
        """The same, and wait for it."""
        await self._client.aclose()

    def another(self) -> Caller:
        """The same for the loop that runs, with connections of its own."""
        return Caller(self._addresses, self._token, self._limit)

    async def ask(
        self,
        method: str,
        path: str,
        body: BaseModel | None = None,
        kind: type[T] | Any = None,
        *,
        wait: float = 0.0,
        **query: Any,
    ) -> T:
        """What the manager answers, as `kind`; `wait`: seconds that it may take longer.

        Raises ManagerError, NodeDead, LaneLocked; about jobs also NotFound, JobError and TaskError; for an enqueue that was sent
        and not answered WriteUnknown.
        """
        content = None if body is None else body.model_dump_json(exclude_defaults=True)
        return await self.ask_raw(method, path, content, kind, wait=wait, **query)

    async def ask_raw(
        self,
        method: str,
        path: str,
        content: str | bytes | None,
        kind: type[T] | Any,
        *,
        wait: float = 0.0,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> T:
        """The same with a body that is JSON already, and further headers."""
        address = self.address
        try:
            for _ in range(THROTTLED):
                response = await self._client.request(
                    method,
                    f"{address}{path}",
                    content=content,
                    params=query or None,
                    headers={**(headers or {}), "Content-Type": "application/json"} if content is not None else None,
                    timeout=httpx.Timeout(self._limit + wait, connect=CONNECT_LIMIT),
                )
                if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                    break
                await asyncio.sleep(float(response.headers.get("Retry-After", "1")))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, RuntimeError, OSError) as error:
            self._addresses.failed(address)
            reason = f"the manager at {address} cannot be reached: {message_of(error)}"
            if _enqueues(method, path) and not isinstance(error, _UNSENT):
                raise WriteUnknown(reason) from error
            raise ManagerError(reason) from error
        if response.status_code in _GATEWAY and _enqueues(method, path):
            raise WriteUnknown(f"the manager at {address} answers {response.status_code}")
        if response.status_code >= 300:
            raise self._refusal(response, address, path)
        if kind is None:
            return None  # type: ignore[return-value]
        try:
            answer: T = TypeAdapter(kind).validate_json(response.content)
        except ValidationError as error:
            raise ManagerError(f"what answers at {address} is no manager of this version") from error
        return answer

    def _refusal(self, response: httpx.Response, address: str, path: str) -> Exception:
        try:
            detail = str(response.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = response.reason_phrase
        known = {**_REFUSALS, **_OF_JOBS} if path.startswith(JOBS) else _REFUSALS
        kind = known.get(response.status_code)
        if kind is None:
            return ManagerError(f"the manager at {address} answers {response.status_code}: {detail}")
        return kind(f"the manager at {address}: {detail}" if issubclass(kind, ManagerError) else detail)


def _enqueues(method: str, path: str) -> bool:
    return method == "POST" and path == JOBS
