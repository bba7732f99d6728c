"""Resources: what handlers share, such as a client of HTTP; opened once per daemon, at the first use, and closed when it drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from workerd.error_text import line_of
from workerd.errors import JobError

if TYPE_CHECKING:
    import inspect
    from collections.abc import AsyncIterator, Callable, Mapping

T = TypeVar("T")
CLOSING = 10.0  # seconds that one may take to close

log = logging.getLogger(__name__)


class Resource(Generic[T]):
    """Made by `resource`: how it is opened, and closed."""

    def __init__(self, fn: Callable[[], AsyncIterator[T]]) -> None:
        self.name = fn.__qualname__
        self.open = contextlib.asynccontextmanager(fn)


def resource(fn: Callable[[], AsyncIterator[T]]) -> Resource[T]:
    """Declare a resource: an asynchronous generator that opens it, yields it once, and closes it behind the `yield`."""
    return Resource(fn)


def use(wanted: Resource[T]) -> T:
    """The default of a handler's parameter that is to be this resource: `http: Client = use(client)`."""
    return _Used(wanted)  # type: ignore[return-value]  # who runs the handler puts the resource in its place


class _Used:
    def __init__(self, wanted: Resource[Any]) -> None:
        self.wanted = wanted


def used(signature: inspect.Signature) -> dict[str, Resource[Any]]:
    """The parameters of a handler that are resources."""
    return {p.name: p.default.wanted for p in signature.parameters.values() if isinstance(p.default, _Used)}


class Resources:
    """Those that are open. Each lives in an asyncio task of its own, which opens and closes it, so that no job's end is its end.

    What is set in context variables is what was when this was made, and nothing of the job that is the first to use one.
    """

    def __init__(self) -> None:
        self._context = copy_context()
        self._open: dict[Resource[Any], tuple[asyncio.Future[Any], asyncio.Event, asyncio.Task[None]]] = {}

    async def get(self, wanted: Mapping[str, Resource[Any]]) -> dict[str, Any]:
        """Each of these, opened unless it is. Raises JobError when one cannot be; the next who asks tries again."""
        return {name: await self._get(each) for name, each in wanted.items()}

    async def close(self) -> None:
        """Close all, the one that was opened last first. What goes wrong is logged."""
        for each in reversed(list(self._open)):
            _, stop, keeper = self._open.pop(each)
            stop.set()
            done, _ = await asyncio.wait([keeper], timeout=CLOSING)
            if not done:
                log.error("the resource %s does not close within %.0f s: it is left behind", each.name, CLOSING)
                keeper.cancel()

    async def _get(self, wanted: Resource[Any]) -> Any:
        if wanted not in self._open:
            ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            stop = asyncio.Event()
            name, context = f"resource {wanted.name}", self._context.copy()
            keeper = asyncio.get_running_loop().create_task(self._keep(wanted, ready, stop), name=name, context=context)
            self._open[wanted] = ready, stop, keeper
        return await asyncio.shield(self._open[wanted][0])

    async def _keep(self, wanted: Resource[Any], ready: asyncio.Future[Any], stop: asyncio.Event) -> None:
        try:
            async with wanted.open() as opened:
                ready.set_result(opened)
                await stop.wait()
        except BaseException as error:  # noqa: BLE001 - it is a user's code, which may raise anything
            if ready.done():
                log.error("the resource %s did not close: %s", wanted.name, line_of(error))  # noqa: TRY400 - one line
                return
            self._open.pop(wanted, None)
            ready.set_exception(JobError(f"the resource {wanted.name} cannot be opened: {line_of(error)}"))
            ready.exception()  # nobody may wait for it any more
