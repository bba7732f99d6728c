"""Flows: jobs that wait for each other, enqueued in one transaction; batches, whose end can be waited for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from workerd.asked import After, Asked
from workerd.errors import TaskError
from workerd.queue import enqueue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from workerd.job import AnyConnection, AnyTransaction
    from workerd.queue.client import Queue
    from workerd.tasks import Task

BATCH = "workerd.batch"  # the task of batches, which no daemon runs
_BATCH = enqueue.Options(BATCH, "default", 0, None, None, None, Asked(end="finished", batch=True))


@dataclass(frozen=True)
class Call:
    """A call of a task that is to become a job. `after`: names of other calls of the flow, with `need` and `end` as in `After`.

    `options` are further keywords of `Queue.enqueue`.
    """

    task: str | Task[..., Any]
    payload: Mapping[str, Any] = field(default_factory=dict)
    after: str | Sequence[str] = ()
    need: Any = "all"
    end: Any = "succeeded"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The calls that it waits for."""
        return (self.after,) if isinstance(self.after, str) else tuple(self.after)


async def flow(queue: Queue, calls: Mapping[str, Call], connection: AnyTransaction) -> dict[str, int]:
    """Enqueue calls that wait for each other, and return the ids of the jobs by the names of the calls. Raises TaskError for a cycle."""
    for name, call in calls.items():
        unknown = sorted(set(call.names) - calls.keys())
        if unknown:
            raise TaskError(f"{name} is to come after {', '.join(unknown)}, which is no call of this flow")
    try:
        order = list(TopologicalSorter({name: call.names for name, call in calls.items()}).static_order())
    except CycleError as error:
        raise TaskError(f"these calls wait for each other in a cycle: {' → '.join(reversed(error.args[1]))}") from error
    ids: dict[str, int] = {}
    for name in order:
        call = calls[name]
        after = After([ids[parent] for parent in call.names], call.need, call.end) if call.names else None
        ids[name] = await queue.enqueue(call.task, call.payload, after=after, connection=connection, **call.options)
    return {name: ids[name] for name in calls}


async def chain(queue: Queue, calls: Sequence[Call], connection: AnyTransaction) -> list[int]:
    """Enqueue calls of which each waits for the one before; returns the ids of the jobs in this order."""
    named = {str(place): replace(call, after=str(place - 1) if place else ()) for place, call in enumerate(calls)}
    return list((await flow(queue, named, connection)).values())


class Batch:
    """Jobs whose end is waited for together. Made by `Queue.batch`; they are enqueued when its block is left without an error.

    `id` is that of a job which succeeds when all of them have ended, however they do. Its result counts them:
    `{"jobs": 3, "succeeded": 2, "failed": 1, "cancelled": 0}`.
    """

    def __init__(self, queue: Queue, on_finished: Call | None) -> None:
        self._queue = queue
        self._on_finished = on_finished
        self._opened: AbstractAsyncContextManager[AnyConnection] | None = None
        self._transaction: Any = None
        self._connection: AnyConnection | None = None
        self.jobs: list[int] = []
        self.id = 0  # known when the block is left
        self.finished_id: int | None = None  # of the job of `on_finished`

    async def enqueue(
        self, task: str | Task[..., Any], payload: Mapping[str, Any] | None = None, **options: Any
    ) -> int:
        """Add a job; as `Queue.enqueue`."""
        self.jobs.append(await self._queue.enqueue(task, payload, connection=self._connection, **options))
        return self.jobs[-1]

    async def enqueue_many(
        self, task: str | Task[..., Any], payloads: Sequence[Mapping[str, Any]], **options: Any
    ) -> list[int]:
        """Add many; as `Queue.enqueue_many`."""
        ids = await self._queue.enqueue_many(task, payloads, connection=self._connection, **options)
        self.jobs += ids
        return ids

    async def __aenter__(self) -> Batch:
        self._opened = self._queue.connection()
        self._connection = await self._opened.__aenter__()
        self._transaction = self._connection.transaction()
        await self._transaction.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        assert self._opened is not None
        try:
            if kind is not None:
                await self._transaction.rollback()
                return
            try:
                await self._close()
            except BaseException:
                await self._transaction.rollback()
                raise
            await self._transaction.commit()
        finally:
            await self._opened.__aexit__(kind, error, trace)

    async def _close(self) -> None:
        assert self._connection is not None
        asked = _BATCH.asked
        assert asked is not None
        self.id = await enqueue.one(
            self._connection, _BATCH._replace(asked=asked._replace(after=tuple(self.jobs))), "{}", None
        )
        if self._on_finished is not None:
            call = self._on_finished
            self.finished_id = await self._queue.enqueue(
                call.task, call.payload, after=[self.id], connection=self._connection, **call.options
            )
