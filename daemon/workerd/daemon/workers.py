"""The workers: coroutine slots that take claimed jobs and run them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workerd.daemon.backlog import Backlog
    from workerd.daemon.executor import Executor
    from workerd.daemon.finisher import Finisher
    from workerd.queue.claim import Claimed
    from workerd.queue.node import Figures


@dataclass(slots=True, eq=False)
class Slot:
    """One coroutine; `worker` counts from 1."""

    worker: int
    task: asyncio.Task[None] | None = None
    job: Claimed | None = None
    started: float = 0.0  # monotonic
    retired: bool = False


class Workers:
    """N workers with `concurrent` slots each; N can change while they work."""

    def __init__(
        self,
        backlog: Backlog,
        executor: Executor,
        finisher: Finisher,
        figures: Figures,
        wake: asyncio.Event,
        concurrent: int,
    ) -> None:
        self._backlog = backlog
        self._executor = executor
        self._finisher = finisher
        self._figures = figures
        self._wake = wake
        self._concurrent = concurrent
        self._slots: list[Slot] = []
        self._leaving: set[Slot] = set()
        self._group: asyncio.TaskGroup | None = None
        self.quiet = asyncio.Event()  # set while no job runs
        self.quiet.set()
        self.mean_run: float | None = None  # seconds, an exponential average: how far ahead to claim

    @property
    def capacity(self) -> int:
        return len(self._slots)

    @property
    def busy(self) -> int:
        return self._figures.busy

    @property
    def idle(self) -> int:
        return sum(slot.job is None for slot in self._slots)

    def start(self, group: asyncio.TaskGroup, count: int) -> None:
        self._group = group
        self.scale(count)

    def scale(self, count: int) -> None:
        """Change the number of workers; a job that runs is not interrupted."""
        assert self._group is not None
        wanted = count * self._concurrent
        while len(self._slots) < wanted:
            slot = Slot(len(self._slots) // self._concurrent + 1)
            slot.task = self._group.create_task(self._work(slot), name=f"worker-{slot.worker}")
            self._slots.append(slot)
        while len(self._slots) > wanted:
            self._retire(self._slots.pop())
        self._figures.workers = count
        self._wake.set()

    def describe(self) -> list[dict[str, Any]]:
        """One entry a slot, as `status --json` shows it."""
        now = monotonic()
        return [
            {
                "worker": slot.worker,
                "state": "busy" if slot.job else "idle",
                "job_id": slot.job.id if slot.job else None,
                "task": slot.job.task if slot.job else None,
                "running_s": round(now - slot.started, 3) if slot.job else None,
            }
            for slot in (*self._slots, *self._leaving)
        ]

    def _retire(self, slot: Slot) -> None:
        slot.retired = True
        if slot.job is not None:
            self._leaving.add(slot)
        elif slot.task is not None:
            slot.task.cancel()

    async def _work(self, slot: Slot) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        while not slot.retired:
            job = await self._backlog.get()
            slot.job, slot.started = job, monotonic()
            self._figures.busy += 1
            self.quiet.clear()
            ended = await self._executor.run(job, worker)
            slot.job = None
            self._figures.busy -= 1
            if not self._figures.busy:
                self.quiet.set()
            self.mean_run = ended.ran if self.mean_run is None else self.mean_run * 0.8 + ended.ran * 0.2
            self._finisher.add(ended)
        self._leaving.discard(slot)
