"""Flows: jobs that wait for each other, enqueued in one transaction; batches, whose end can be waited for."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, Unpack

from workerd.asked import After, JobOptions
from workerd.errors import TaskError
from workerd.queue import enqueue
from workerd.queue.own_transaction import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from workerd.asked import BatchOptions, EnqueueOptions
    from workerd.job import AnyConnection, AnyTransaction
    from workerd.queue.client import Queue
    from workerd.tasks import Task

BATCH = "workerd.batch"  # the task of batches, which no daemon runs


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
        order = _order(calls)
    except CycleError as error:
        raise TaskError(f"these calls wait for each other in a cycle: {' → '.join(reversed(error.args[1]))}") from error
    ids: dict[str, int] = {}
    for name in order:
        call = calls[name]
        after = After([ids[parent] for parent in call.names], call.need, call.end) if call.names else None
        ids[name] = await queue.enqueue(call.task, call.payload, after=after, connection=connection, **call.options)
    return {name: ids[name] for name in calls}


def _order(calls: Mapping[str, Call]) -> list[str]:
    """Parents before children; otherwise by keys: who takes several of them in one order never waits in a circle with others."""
    sorter = TopologicalSorter({name: call.names for name, call in calls.items()})
    sorter.prepare()
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=lambda name: str(calls[name].options.get("key") or ""))
        order += ready
        sorter.done(*ready)
    return order


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
        self._opened = AsyncExitStack()  # of the block: the connection and its transaction
        self._connection: AnyConnection | None = None
        self.jobs: list[int] = []
        self.id = 0  # known when the block is left
        self.finished_id: int | None = None  # of the job of `on_finished`

    async def enqueue(
        self, task: str | Task[..., Any], payload: Mapping[str, Any] | None = None, **options: Unpack[EnqueueOptions]
    ) -> int:
        """Add a job; as `Queue.enqueue`."""
        self.jobs.append(await self._queue.enqueue(task, payload, connection=self._connection, **options))
        return self.jobs[-1]

    async def enqueue_many(
        self, task: str | Task[..., Any], payloads: Sequence[Mapping[str, Any]], **options: Unpack[BatchOptions]
    ) -> list[int]:
        """Add many; as `Queue.enqueue_many`."""
        ids = await self._queue.enqueue_many(task, payloads, connection=self._connection, **options)
        self.jobs += ids
        return ids

    async def __aenter__(self) -> Batch:
        async with AsyncExitStack() as opening:
            self._connection = await opening.enter_async_context(self._queue.connection())
            await opening.enter_async_context(transaction(self._connection))
            self._opened = opening.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None:
            await self._opened.__aexit__(kind, error, trace)
            return
        async with self._opened:
            await self._close()

    async def _close(self) -> None:
        assert self._connection is not None
        place = {"queue": "default", "priority": 0}
        waits = {"after": tuple(self.jobs), "after_end": "finished", "batch": True}
        self.id = await enqueue.one(self._connection, JobOptions(BATCH, {**place, **waits}), "{}")
        if self._on_finished is not None:
            call = self._on_finished
            self.finished_id = await self._queue.enqueue(
                call.task, call.payload, after=[self.id], connection=self._connection, **call.options
            )


class SyncBatch:
    """A `Batch` for code that does not await."""

    def __init__(self, run: Callable[[Callable[[Any], Coroutine[Any, Any, Any]]], Any], batch: Batch) -> None:
        self._run = run
        self._batch = batch

    def enqueue(self, *args: Any, **options: Any) -> int:
        """Add a job; as `Queue.enqueue`."""
        job: int = self._run(lambda _: self._batch.enqueue(*args, **options))
        return job

    def enqueue_many(self, *args: Any, **options: Any) -> list[int]:
        """Add many; as `Queue.enqueue_many`."""
        jobs: list[int] = self._run(lambda _: self._batch.enqueue_many(*args, **options))
        return jobs

    @property
    def id(self) -> int:
        return self._batch.id

    @property
    def finished_id(self) -> int | None:
        return self._batch.finished_id
