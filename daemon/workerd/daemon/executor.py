"""The executor: runs one claimed job and makes one outcome of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import math
import sys
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from workerd import around, codec, trace
from workerd.daemon import django_connections, forks
from workerd.daemon.children.pool import Children
from workerd.daemon.django_connections import ASGIREF
from workerd.daemon.endings import Endings, task_input
from workerd.daemon.run import Run
from workerd.daemon.stack import stack_of
from workerd.daemon.threads import Threads
from workerd.error_text import line_of
from workerd.errors import PayloadError
from workerd.fingerprint import LONGEST
from workerd.job import Job
from workerd.outcomes import SUCCEEDED, Outcome, Unfit
from workerd.queue.finish import Finished
from workerd.redact import Redactor
from workerd.resources import Resources
from workerd.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from workerd.config import Settings
    from workerd.daemon.current import Attempt
    from workerd.daemon.prelude import Prelude
    from workerd.job import Host
    from workerd.queue.claim import Claimed
    from workerd.tasks import Task

CANCEL_GRACE = 10.0  # seconds that a handler may take to end when it is cancelled; then its worker is written off
LOOK = 0.1  # seconds between two looks whether a debugger still holds a handler

_modules = sys.modules

log = logging.getLogger(__name__)


class Executor:
    """Runs jobs: `async def` handlers on the loop, `def` handlers in threads, those of `cpu=True` in child processes."""

    def __init__(self, settings: Settings, tasks: dict[str, Task[..., Any]]) -> None:
        self._settings = settings
        self._job_timeout = settings.job_timeout
        self._tasks = tasks
        self._endings = Endings(settings)
        self._redact = Redactor(settings)
        self.ttl = self._endings.ttl
        self.threads = Threads()
        self._django = django_connections.OnLoop()
        self.children = Children(settings)
        self.running: set[Run] = set()
        self.written_off: set[Run] = set()  # those that ignore their cancellation, until they end after all
        self.last: Finished | None = None  # the run that has ended last
        self.on_written_off: Callable[[Run, Finished], None] | None = None
        self.host: Host | None = None
        self.prelude: Prelude | None = None
        self.resources = Resources()
        self._around = tuple(around.registry)

    async def run(self, claimed: Claimed, worker: asyncio.Task[Any]) -> Finished:
        """Run the job's handler in `worker`, the asyncio task that calls this; whatever it does becomes the outcome."""
        task = self._tasks[claimed.task]
        around = self._around
        job = self._job(task, claimed) if task.wants_job or around else None
        started = monotonic()
        run = Run(claimed, job, worker, started, started + (task.timeout or self._job_timeout))
        on_loop = task.is_async or around
        if on_loop and ASGIREF in _modules:
            self._django.look(self._is_loop_used)
        self.running.add(run)
        try:
            if around:
                result = await self._through(task, run)
            else:
                result = await (self._start(task, run) if claimed.options is None else self._as_asked(task, run))
            if forks.forked:
                forks.end_if_fork()
            outcome = SUCCEEDED if result is None and not run.committed else self._endings.returned(task, run, result)
        except asyncio.CancelledError as error:
            stopped = run.stop is not None
            outcome = self._endings.stopped(task, run) if stopped else self._endings.raised(task, run, error)
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything, and each of it is an outcome
            forks.end_if_fork(error)
            outcome = self._endings.raised(task, run, error)
        finally:
            self.running.discard(run)
            if on_loop and ASGIREF in _modules:
                self._django.look(self._is_loop_used)
        if run.stop is not None:
            outcome = self._halted(task, run, outcome)
        if outcome.error is not None:
            outcome = replace(outcome, error=self._redact(outcome.error[:LONGEST]))
        ttl = self.ttl(task, outcome.ending)
        ran = monotonic() - started
        lines = None if job is None else job.lines
        end = self.last = Finished(claimed, outcome, started, ran, ttl, run.progress, run.committed, lines)
        return end

    async def enforce_timeouts(self) -> None:
        """Halt what runs past its deadline, write off what does not halt; one sweep for all instead of a timer for each."""
        while True:
            shortest = min((task.timeout or math.inf for task in self._tasks.values()), default=math.inf)
            await asyncio.sleep(max(0.01, min(1.0, shortest / 10, self._settings.job_timeout / 10)))
            now = monotonic()
            for run in [run for run in self.running if run.deadline <= now or run.stop is not None]:
                if run.stop is None and self.threads.held(run):
                    self._renew(run)
                    continue
                run.halt("timeout")
                if run.stop != "returned" and run.halted <= now - CANCEL_GRACE:
                    self._write_off(run)
            self.children.sweep()

    def renew(self) -> None:
        """Whatever runs has its time anew: the loop stood at a debugger's prompt."""
        for run in self.running:
            self._renew(run)

    async def until_let_go(self, now: asyncio.Event) -> bool:
        """Whether a thread stood at a debugger's prompt; returns when none does any more, or `now`."""
        held = False
        while not now.is_set() and any(self.threads.held(run) for run in self.running):
            held = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(now.wait(), LOOK)
        return held

    def on_exit(self, attempt: Attempt, error: BaseException) -> None:
        """Something that a handler had started would have ended the whole program: it ends its attempt."""
        run = next((run for run in self.running if run.attempt == attempt), None)
        remark = "" if run is not None else ", which has ended"
        log.error("job %s %s%s: %s in a task or callback of its own", *attempt[:2], remark, line_of(error))
        if run is not None:
            run.exit = error
            run.halt("exited")

    def abandon(self) -> list[Finished]:
        """The ends of jobs that were told to end and do not: given back, their attempt spent."""
        end = Outcome("returned", error="given back: it did not end when it was cancelled")
        return [
            Finished(run.claimed, end, run.started, monotonic() - run.started, 0.0, run.progress, lines=run.lines)
            for run in self.running
        ]

    @property
    def stray(self) -> int:
        """Handlers that go on although their job has ended: they ignore their cancellation, or run in a thread."""
        return len(self.written_off) + len(self.threads.left)

    def task(self, name: str) -> Task[..., Any]:
        return self._tasks[name]

    def _is_loop_used(self) -> bool:
        """Whether a run goes on that may use what belongs to the loop."""
        return bool(self.running) and (
            bool(self._around) or any(self._tasks[r.claimed.task].is_async for r in self.running)
        )

    def _timeout(self, task: Task[..., Any]) -> float:
        return task.timeout or self._job_timeout

    def _renew(self, run: Run) -> None:
        run.deadline = monotonic() + self._timeout(self._tasks[run.claimed.task])

    def _job(self, task: Task[..., Any], claimed: Claimed) -> Job:
        assert self.host is not None
        return Job(
            claimed.id,
            claimed.task,
            claimed.lane.queue,
            claimed.attempt,
            claimed.failures,
            self._endings.max_retries(task, claimed),
            claimed.key,
            {},
            self.host,
        )

    async def _through(self, task: Task[..., Any], run: Run) -> Any:
        assert run.job is not None
        run.job.payload, _ = task_input(task, run.claimed.payload)
        call: Callable[[], Awaitable[Any]] = functools.partial(self._begin, task, run)
        for each in reversed(self._around):
            call = functools.partial(each, run.job, call)
        return await call()

    def _begin(self, task: Task[..., Any], run: Run) -> Awaitable[Any]:
        return self._start(task, run) if run.claimed.options is None else self._as_asked(task, run)

    async def _as_asked(self, task: Task[..., Any], run: Run) -> Any:
        assert self.prelude is not None
        await self.prelude.play(run)
        carried = trace.passed_on.set(trace.read((run.claimed.options or {}).get("trace")))
        try:
            return await self._start(task, run)
        finally:
            trace.passed_on.reset(carried)

    def _start(self, task: Task[..., Any], run: Run) -> Awaitable[Any]:
        try:  # as task_input does it, without a call: each job comes by here
            payload = codec.loads(run.claimed.payload)
            arguments = task.arguments.restored(payload)
        except PayloadError as error:
            raise Unfit(str(error)) from None
        if task.cpu:
            return self.children.run(task, run, self._endings.max_retries(task, run.claimed), self.host)
        if run.job is not None:
            run.job.payload = payload
            if task.wants_job:
                arguments = {**arguments, "job": run.job}
        if task.resources:
            return self._with_resources(task, run, arguments)
        return task.fn(**arguments) if task.is_async else self._in_thread(task, run, arguments)

    async def _with_resources(self, task: Task[..., Any], run: Run, arguments: Mapping[str, Any]) -> Any:
        arguments = {**arguments, **await self.resources.get(task.resources)}
        return await (task.fn(**arguments) if task.is_async else self._in_thread(task, run, arguments))

    async def _in_thread(self, task: Task[..., Any], run: Run, arguments: Mapping[str, Any]) -> Any:
        handler = functools.partial(forks.contained, functools.partial(task.fn, **arguments))
        result, closed = await self.threads.call(run, functools.partial(_carried, handler))
        if closed is not None:
            raise closed
        return await result if inspect.isawaitable(result) else result  # a wrapper returned what it wraps

    def _halted(self, task: Task[..., Any], run: Run, outcome: Outcome) -> Outcome:
        """The outcome of a run that was told to stop and has ended; CancelledError where its worker is to end with it."""
        if run.written_off:
            self.written_off.discard(run)
            late = format_duration(monotonic() - run.halted)
            log.warning("job %s %s has ended, %s after it was told to", run.claimed.id, run.claimed.task, late)
            raise asyncio.CancelledError
        run.worker.uncancel()
        return self._endings.stopped(task, run) if run.stop == "exited" else outcome

    def _write_off(self, run: Run) -> None:
        """End the job of a handler that ignores its cancellation: its worker is replaced, what it still does is ignored."""
        run.written_off = True
        self.running.discard(run)
        self.written_off.add(run)
        log.error(
            "job %s %s ignores its cancellation: its worker is written off and replaced; it stands at\n%s",
            run.claimed.id,
            run.claimed.task,
            stack_of(run.worker),
            extra={"job": run.claimed.id, "task": run.claimed.task},
        )
        task = self._tasks[run.claimed.task]
        outcome = self._endings.stopped(task, run, ", and it ignores its cancellation")
        ran, ttl = monotonic() - run.started, self.ttl(task, outcome.ending)
        if self.on_written_off is not None:
            self.on_written_off(
                run, Finished(run.claimed, outcome, run.started, ran, ttl, run.progress, lines=run.lines)
            )
        run.worker.cancel()  # perhaps it heeds the second one


def _carried(handler: Callable[[], Any]) -> tuple[Any, GeneratorExit | None]:
    """What it returns; a GeneratorExit as a value, for one that a future carries closes all coroutines that wait for it."""
    try:
        return handler(), None
    except GeneratorExit as error:
        return None, error
