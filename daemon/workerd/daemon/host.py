"""What a running job may ask of its daemon: connections, progress, a finish within its own transaction."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import asyncpg

from workerd import codec
from workerd.codec import storable
from workerd.daemon.done import Done
from workerd.daemon.steps import Steps
from workerd.errors import DatabaseError, LeaseLost
from workerd.job_lines import LEVELS, JobLines
from workerd.outcomes import Outcome
from workerd.queue import progress, transactions
from workerd.queue.database import CONNECTION_ERRORS
from workerd.queue.finish import Finished, holds, split
from workerd.redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from workerd.config import Settings
    from workerd.daemon.audience import Audience
    from workerd.daemon.executor import Executor
    from workerd.daemon.holdings import Holdings
    from workerd.daemon.run import Run
    from workerd.daemon.transport.base import Desk
    from workerd.job import AnyConnection, AnyTransaction, Job

log = logging.getLogger(__name__)
jobs = logging.getLogger("job")


class DaemonHost:
    """The `Host` of the jobs of this daemon."""

    def __init__(
        self, settings: Settings, desk: Desk, executor: Executor, holdings: Holdings, audience: Audience
    ) -> None:
        self._audience = audience
        self._desk = desk
        self._executor = executor
        self._holdings = holdings
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._dirty: dict[int, progress.Progress] = {}
        self._written: dict[int, float] = {}
        self._redact = Redactor(settings)
        self._lines = threading.Lock()  # handlers log from threads of their own
        self._steps = Steps(desk, self._run)

    def connection(self) -> AbstractAsyncContextManager[AnyConnection]:
        return self._desk.connection()

    def report(self, job: Job, fraction: float, message: str | None) -> Awaitable[None]:
        if threading.get_ident() == self._thread:
            return self._report(job, fraction, message)
        asyncio.run_coroutine_threadsafe(self._report(job, fraction, message), self._loop)
        return Done()

    def log(self, job: Job, message: str, level: str) -> None:
        text = self._redact(message)
        with self._lines:
            if job.lines is None:
                job.lines = JobLines()
            line = job.lines.add(level, storable(text))
        extra = {"job": job.id, "task": job.task, "attempt": job.attempt, "line": line}
        jobs.log(LEVELS[level], "%s", text, extra=extra)

    def step(self, job: Job, name: str, call: Callable[[], Any]) -> Any:
        on_loop = threading.get_ident() == self._thread
        return (self._steps.step if on_loop else self._steps.step_in_thread)(job, name, call)

    def wait_for(self, job: Job, event: str, timeout: float | None) -> Any:
        work = self._steps.wait_for(job, event, timeout)
        return work if threading.get_ident() == self._thread else self._steps.in_thread(work)

    def finish_in(self, job: Job, connection: AnyTransaction, result: object) -> Awaitable[None]:
        if threading.get_ident() == self._thread:
            return self._finish_in(job, connection, result)
        transactions.refuse_without(connection)
        run, end = self._steps.in_thread(self._ending(job, result))
        self._committed(run, transactions.without_loop(transactions.finish_one(connection, end), connection))
        return Done()

    async def _finish_in(self, job: Job, connection: AnyTransaction, result: object) -> None:
        transactions.refuse_without(connection)
        run, end = await self._ending(job, result)
        self._committed(run, await transactions.finish_one(connection, end))

    async def _ending(self, job: Job, result: object) -> tuple[Run, Finished]:
        """The success that a handler is about to write, its job in a lease of its own."""
        run = self._run(job)
        if run is None:
            raise LeaseLost(f"job {job.id} is not run by this daemon any more")
        text = None if result is None else codec.dumps(result, f"the result of {job.task}")
        await self._isolate(run)
        await self._write_lines([run])
        ttl = self._executor.ttl(self._executor.task(job.task), "succeeded")
        outcome, ran = Outcome("succeeded", result=text), monotonic() - run.started
        return run, Finished(run.claimed, outcome, run.started, ran, ttl, run.progress)

    def _committed(self, run: Run, held: bool) -> None:
        if not held:
            raise LeaseLost(f"job {run.claimed.id} was taken back from this node")
        run.committed = True

    async def flush_forever(self) -> None:
        """Write the newest progress of each job, and what jobs have logged, as long as there is any.

        Every PROGRESS_INTERVAL, for an audience more often.
        """
        while True:
            await self._audience.pause()
            recent = monotonic() - self._audience.interval
            self._written = {job: at for job, at in self._written.items() if at > recent}
            if self._dirty:
                await self._write(list(self._dirty))
            logging_now = [run for run in self._executor.running if run.lines is not None and run.lines.pending]
            if logging_now:
                await self._keep_lines(logging_now)

    async def _report(self, job: Job, fraction: float, message: str | None) -> None:
        run = self._run(job)
        if run is None:
            return
        run.progress = fraction
        self._dirty[job.id] = progress.Progress(replace(run.claimed), fraction, message)
        if job.id not in self._written:
            await self._write([job.id])

    async def _write(self, jobs: list[int]) -> None:
        reports = [self._dirty.pop(job) for job in jobs]
        self._written.update(dict.fromkeys(jobs, monotonic()))
        try:
            for node in {r.job.node for r in reports}:
                await self._desk.report(node, [r for r in reports if r.job.node == node])
        except (DatabaseError, asyncpg.PostgresError, *CONNECTION_ERRORS) as error:
            log.warning("progress of %s jobs could not be written: %s", len(reports), error)

    async def _keep_lines(self, runs: list[Run]) -> None:
        try:
            await self._write_lines(runs)
        except (DatabaseError, asyncpg.PostgresError, *CONNECTION_ERRORS) as error:
            log.warning("what %s jobs have logged could not be written yet: %s", len(runs), error)

    async def _write_lines(self, runs: list[Run]) -> None:
        logged = [(run.claimed, run.lines) for run in runs if run.lines is not None]
        for node in {job.node for job, _ in logged}:
            await self._desk.keep_lines(node, [each for each in logged if each[0].node == node])

    async def _isolate(self, run: Run) -> None:
        """Give the job a lease of its own: the caller's transaction then blocks no other job of its batch."""
        claimed = run.claimed
        number = self._holdings.begin_split(claimed)
        async with self._desk.connection() as own:
            if not (await split(own, claimed, number) or await holds(own, claimed, number)):
                raise LeaseLost(f"job {claimed.id} was taken back from this node")
        self._holdings.end_split(claimed)

    def _run(self, job: Job) -> Run | None:
        return next((run for run in self._executor.running if run.job is job), None)
