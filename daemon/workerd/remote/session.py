"""The claimer's session through a manager, and the lease thread's presence."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from pydantic import ValidationError

from workerd.codec import storable
from workerd.errors import DatabaseError, ManagerError, NodeDead, RequestRefused
from workerd.outcomes import Outcome
from workerd.queue.finish import Lease
from workerd.queue.lane import Lane
from workerd.queue.orders import Order
from workerd.queue.quarantine import isolate, refused
from workerd.remote import wire, words

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from workerd.declaration import Declared
    from workerd.queue.claim import Answer, Wanted
    from workerd.queue.finish import Finished
    from workerd.queue.node import Figures, Registration
    from workerd.queue.tally import Tally
    from workerd.remote.caller import Caller

POLL = 20.0  # seconds that the manager may keep a question for notices
MAX_REASON = 16_000  # characters
KEPT = 30 * 86400.0  # seconds for which a job is kept whose end was refused

T = TypeVar("T")

log = logging.getLogger(__name__)


class HttpSession:
    """As a session of the database has notifications, this one asks for notices all the time; it is lost when such a question fails."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.is_closed = False
        self._asking: asyncio.Task[Any] | None = None
        self._listening: asyncio.Task[None] | None = None

    def terminate(self) -> None:
        self.is_closed = True
        for work in (self._asking, self._listening):
            if work is not None:
                work.cancel()
        self._caller.close()

    async def host(self) -> str:
        return self._caller.address

    async def listen(self, heard: Callable[[str], None], lost: Callable[[], None]) -> None:
        self._listening = asyncio.create_task(self._hear(heard, lost), name="notices")

    async def lanes(self, node: int, queues: Collection[str], name: str) -> list[Lane]:
        found: list[words.LaneWords] = await self._ask("GET", node, "lanes", None, list[words.LaneWords])
        return [Lane(lane.id, lane.queue, lane.priority) for lane in found]

    async def cycle(self, node: int, ended: Sequence[Finished], wanted: Wanted) -> tuple[list[bool], Answer]:
        *first, last = wire.portions(ended)
        held = await self.write(node, [end for portion in first for end in portion])
        try:
            told: words.Claims = await self._ask(
                "POST", node, "claim", _said(wire.claim_words, wanted, last), words.Claims
            )
        except RequestRefused:
            if not last:
                raise
            held += await self.write(node, last)
            told = await self._ask("POST", node, "claim", wire.claim_words(wanted, []), words.Claims)
        return held + told.held, wire.answer(node, wanted, told)

    async def write(self, node: int, ended: Sequence[Finished]) -> list[bool]:
        finish, alone = partial(self._finish, node), partial(self._fail, node)
        return [mine for portion in wire.portions(ended) for mine in await isolate(portion, finish, alone)]

    async def leases(self, node: int) -> list[Lease]:
        found: list[words.LeaseWords] = await self._ask("GET", node, "leases", None, list[words.LeaseWords])
        return [Lease(lease.n, frozenset(lease.tickets), frozenset(lease.cancel)) for lease in found]

    async def give_back(self, node: int, n: int, positions: list[int], ttl: float) -> None:
        await self._ask("POST", node, "release", words.Release(n=n, positions=positions, ttl=ttl))

    async def orders(self, node: int) -> list[Order]:
        found: list[words.OrderWords] = await self._ask("GET", node, "orders", None, list[words.OrderWords])
        return [Order(order.id, order.verb, order.arguments) for order in found]

    async def order_done(self, node: int, order: int, result: dict[str, Any] | None, error: str | None) -> None:
        await self._ask("POST", node, f"orders/{order}", words.OrderDone(result=result, error=error))

    async def tally(self, node: int, tallies: dict[tuple[str, str], Tally]) -> None:
        told = [wire.tally_words(task, queue, each).model_dump() for (task, queue), each in tallies.items()]
        await self._asked(self._caller.ask_raw("POST", f"/api/v1/nodes/{node}/tallies", orjson.dumps(told), None))

    async def _finish(self, node: int, ended: Sequence[Finished]) -> list[bool]:
        finish = _said(wire.finish_words, ended)
        done: words.FinishDone = await self._ask("POST", node, "finish", finish, words.FinishDone)
        return done.held

    async def _fail(self, node: int, end: Finished, error: Exception) -> bool:
        """Write an end that was refused as a failure."""
        reason = storable(refused(end, error))[:MAX_REASON]
        log.error("job %s (%s): %s", end.job.id, end.job.task, reason)
        end.outcome, end.ttl, end.progress, end.lines = Outcome("failed", error=reason), KEPT, None, None
        return (await self._finish(node, [end]))[0]

    async def _ask(self, method: str, node: int, what: str, body: Any = None, kind: Any = None) -> Any:
        return await self._asked(self._caller.ask(method, f"/api/v1/nodes/{node}/{what}", body, kind))

    async def _asked(self, question: Any) -> Any:
        """Whoever waits for an answer hears of it when the session is given up."""
        self._asking = asyncio.ensure_future(question)
        try:
            return await self._asking
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.is_closed and (task is None or not task.cancelling()):
                raise ManagerError("the connection to the manager was given up") from None
            self._asking.cancel()
            raise

    async def _hear(self, heard: Callable[[str], None], lost: Callable[[], None]) -> None:
        cursor = ""
        try:
            while True:
                told: words.Notices = await self._caller.ask(
                    "GET", "/api/v1/notices", None, words.Notices, wait=POLL, after=cursor, patience=POLL
                )
                cursor = told.cursor
                for notice in told.notices:
                    heard(notice)
        except DatabaseError:
            self.is_closed = True
            lost()


def _said(make: Callable[..., T], *arguments: object) -> T:
    """What a request is to carry. Raises RequestRefused for what no manager would take."""
    try:
        return make(*arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestRefused(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


class HttpPresence:
    """It has no lock: a node that works through a manager lives by its heartbeats alone."""

    def __init__(self, caller: Caller, declared: Declared) -> None:
        self._caller = caller
        self._declared = declared

    def terminate(self) -> None:
        self._caller.close()

    def on_lost(self, lost: Callable[[], None]) -> None:
        """Nothing tells: the next beat does."""

    async def lock(self, node: int) -> bool:
        return True

    async def unlock(self) -> None:
        return

    async def register(self, node: int, about: Registration, workers: int) -> None:
        body = wire.new_node(about, node, workers, self._declared)
        await self._caller.ask("POST", "/api/v1/nodes", body, words.Registered)

    async def beat(self, node: int, figures: Figures) -> bool:
        body = words.Beat(
            workers=figures.workers,
            busy=max(0, figures.busy),
            draining=figures.draining,
            jobs_done=figures.done,
            jobs_failed=figures.failed,
            rss=figures.rss,
            lag=figures.lag,
        )
        try:
            await self._caller.ask("POST", f"/api/v1/nodes/{node}/heartbeat", body)
        except NodeDead:
            return False
        return True

    async def leave(self, node: int, figures: Figures) -> None:
        path = f"/api/v1/nodes/{node}"
        with contextlib.suppress(NodeDead):
            await self._caller.ask("DELETE", path, None, None, jobs_done=figures.done, jobs_failed=figures.failed)
