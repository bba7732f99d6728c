"""The workers: coroutine slots that take claimed jobs and run them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextvars import Context, copy_context
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from workerd.daemon import current
from workerd.daemon.pristine import Pristine

if TYPE_CHECKING:
    from workerd.daemon.backlog import Backlog
    from workerd.daemon.executor import Executor
    from workerd.daemon.finisher import Finisher
    from workerd.daemon.run import Run
    from workerd.daemon.spans import RunJob
    from workerd.queue.claim import Claimed
    from workerd.queue.finish import Finished
    from workerd.queue.node import Figures


TURN = 0.002  # seconds for which jobs that never wait may keep the loop from everything else

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Slot:
    """A place for one job at a time; `worker` counts from 1, `task` is the asyncio task that fills it now."""

    worker: int
    task: asyncio.Task[None] | None = None
    job: Claimed | None = None
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
        self.run: RunJob = executor.run  # or the same within something
        self._finisher = finisher
        self._figures = figures
        self._wake = wake
        self._concurrent = concurrent
        self._slots: list[Slot] = []
        self._leaving: set[Slot] = set()
        self._group: asyncio.TaskGroup | None = None
        self._context = Context()  # of which each worker has a copy
        self.quiet = asyncio.Event()  # set when, after `drain`, no job runs
        self._draining = False
        self.mean_run: float | None = None  # seconds, an exponential average: how far ahead to claim
        executor.on_written_off = self._replace

    @property
    def capacity(self) -> int:
        return len(self._slots)

    @property
    def count(self) -> int:
        return self._figures.workers

    @property
    def busy(self) -> int:
        return self._figures.busy

    @property
    def written_off(self) -> int:
        """Handlers that go on though their job has ended."""
        return self._executor.stray

    @property
    def children(self) -> int:
        """Processes of `cpu=True` tasks, idle ones too."""
        return len(self._executor.children)

    @property
    def idle(self) -> int:
        return sum(slot.job is None for slot in self._slots) if self._figures.busy else len(self._slots)

    def start(self, group: asyncio.TaskGroup, count: int) -> None:
        self._group = group
        self._context = copy_context()
        self.scale(count)

    def scale(self, count: int) -> None:
        """Change the number of workers; a job that runs is not interrupted."""
        wanted = count * self._concurrent
        while len(self._slots) < wanted:
            self._slots.append(self._begin(len(self._slots) // self._concurrent + 1))
        while len(self._slots) > wanted:
            self._retire(self._slots.pop())
        self._figures.workers = count
        self._wake.set()

    def drain(self) -> None:
        """From now on tell when no job runs."""
        self._draining = True
        self._tell_if_quiet()

    def describe(self) -> list[dict[str, Any]]:
        """One entry a slot, as `status --json` shows it."""
        now = monotonic()
        started = {run.claimed: run.started for run in self._executor.running}
        return [
            {
                "worker": slot.worker,
                "state": "busy" if slot.job else "idle",
                "job_id": slot.job.id if slot.job else None,
                "task": slot.job.task if slot.job else None,
                "running_s": round(now - started.get(slot.job, now), 3) if slot.job else None,
            }
            for slot in (*self._slots, *self._leaving)
        ]

    def _begin(self, worker: int) -> Slot:
        slot = Slot(worker)
        self._fill(slot)
        return slot

    def _fill(self, slot: Slot) -> None:
        """Let a new asyncio task fill the slot. Raises RuntimeError when the daemon ends by an error."""
        assert self._group is not None
        working = self._work(slot)
        try:
            task = self._group.create_task(working, name=f"worker-{slot.worker}", context=self._context.copy())
        except RuntimeError:
            working.close()
            raise
        slot.task = task
        task.add_done_callback(lambda ended: self._on_end(slot, ended))

    def _on_end(self, slot: Slot, ended: asyncio.Task[None]) -> None:
        """Fill the slot again unless that has been done, or nobody wants it any more."""
        if slot.retired or slot.task is not ended:
            return
        with contextlib.suppress(RuntimeError):
            self._fill(slot)
            log.error("worker %s was cancelled, and not from here: another one takes its place", slot.worker)

    def _replace(self, run: Run, end: Finished) -> None:
        """The slot of a run that was written off is another one from now on; the coroutine that it leaves takes no job more."""
        for place, slot in enumerate(self._slots):
            if slot.task is run.worker:
                slot.retired = True
                self._slots[place] = self._begin(slot.worker)
        self._leaving = {slot for slot in self._leaving if slot.task is not run.worker}
        self._figures.busy -= 1
        self._tell_if_quiet()
        self._finisher.add(end)

    def _retire(self, slot: Slot) -> None:
        slot.retired = True
        if slot.job is not None:
            self._leaving.add(slot)
        elif slot.task is not None:
            slot.task.cancel()

    async def _work(self, slot: Slot) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        pristine = Pristine()
        figures, run, finished, set_attempt = self._figures, self.run, self._finisher.add, current.attempt.set
        turned = 0.0  # when the loop last had its turn, as far as this worker knows
        while not slot.retired:
            job = self._backlog.take()
            if job is None:
                set_attempt(None)
                job = await self._backlog.get()
                turned = monotonic()
            slot.job = job
            figures.busy += 1
            closed = False
            set_attempt((job.id, job.task, job.attempt))
            context = copy_context()
            try:
                ended = await run(job, worker)
            except (
                GeneratorExit
            ):  # what the handler awaited has raised it: Python has closed the run, which has ended by that
                assert self._executor.last is not None
                ended, closed = self._executor.last, True
            slot.job = None
            figures.busy -= 1
            if self._draining:
                self._tell_if_quiet()
            ran = ended.ran
            self.mean_run = ran if self.mean_run is None else self.mean_run * 0.8 + ran * 0.2
            finished(ended)
            if closed or not pristine.holds(context):
                self._succeed(slot)
                return
            if ended.started + ran - turned > TURN:
                set_attempt(None)
                await asyncio.sleep(0)
                turned = monotonic()
        self._leaving.discard(slot)

    def _succeed(self, slot: Slot) -> None:
        """The handler has left something in this asyncio task: another one fills the slot."""
        if slot.retired:
            self._leaving.discard(slot)
            return
        with contextlib.suppress(RuntimeError):
            self._fill(slot)

    def _tell_if_quiet(self) -> None:
        if self._draining and not self._figures.busy:
            self.quiet.set()
