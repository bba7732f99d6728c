"""The executor: runs one claimed job and makes one outcome of it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import math
import threading
import traceback
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from workerd import codec
from workerd.errors import PayloadError
from workerd.job import Job
from workerd.outcomes import SUCCEEDED, Discard, Outcome, RetryAfter, Snooze
from workerd.queue.finish import Finished

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workerd.config import Settings
    from workerd.job import Host
    from workerd.outcomes import Ending
    from workerd.queue.claim import Claimed
    from workerd.tasks import Task

MAX_ERROR = 16_000  # characters of a traceback that are kept

log = logging.getLogger(__name__)

Stop = Literal["cancelled", "returned", "lost", "timeout"]


@dataclass(slots=True, eq=False)
class Run:
    """A job that is being run by the asyncio task `worker`; `deadline` and `started` are monotonic seconds."""

    claimed: Claimed
    job: Job | None  # None: the handler does not want it
    worker: asyncio.Task[Any]
    started: float
    deadline: float
    stop: Stop | None = None  # why it was told to stop
    progress: float | None = None
    committed: bool = False  # finish_in was called

    def halt(self, why: Stop) -> None:
        """Cancel the handler; the outcome says why."""
        if self.stop is None:
            self.stop = why
            self.worker.cancel()


class Executor:
    """Runs jobs: `async def` handlers on the loop, `def` handlers in threads."""

    def __init__(self, settings: Settings, tasks: dict[str, Task[..., Any]]) -> None:
        self._settings = settings
        self._job_timeout = settings.job_timeout
        self._result_ttl = settings.result_ttl
        self._tasks = tasks
        self.running: set[Run] = set()
        self.host: Host | None = None

    async def run(self, claimed: Claimed, worker: asyncio.Task[Any]) -> Finished:
        """Run the job's handler in `worker`, the asyncio task that calls this; whatever it does becomes the outcome."""
        task = self._tasks[claimed.task]
        job = self._job(task, claimed) if task.wants_job else None
        started = monotonic()
        run = Run(claimed, job, worker, started, started + (task.timeout or self._job_timeout))
        self.running.add(run)
        try:
            result = await self._call(task, run)
            outcome = SUCCEEDED if result is None and not run.committed else self._returned(task, run, result)
        except asyncio.CancelledError as error:
            if run.stop is None and worker.cancelling():
                raise  # it is the worker that is cancelled, not something within the handler
            outcome = self._stopped(task, run) if run.stop is not None else self._raised(task, run, error)
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything, and each of it is an outcome
            outcome = self._raised(task, run, error)
        finally:
            self.running.discard(run)
        if run.stop is not None and worker.uncancel():
            raise asyncio.CancelledError  # the worker itself is to end as well
        ttl = self.ttl(task, outcome.ending)
        return Finished(claimed, outcome, started, monotonic() - started, ttl, run.progress, run.committed)

    async def enforce_timeouts(self) -> None:
        """Halt what runs past its deadline; one sweep for all instead of a timer for each."""
        while True:
            shortest = min((task.timeout or math.inf for task in self._tasks.values()), default=math.inf)
            await asyncio.sleep(max(0.01, min(1.0, shortest / 10, self._settings.job_timeout / 10)))
            now = monotonic()
            for run in [run for run in self.running if run.deadline <= now]:
                run.halt("timeout")

    def abandon(self) -> list[Finished]:
        """The ends of jobs that were told to end and do not: given back, their attempt spent."""
        end = Outcome("returned", error="given back: it did not end when it was cancelled")
        return [
            Finished(run.claimed, end, run.started, monotonic() - run.started, 0.0, run.progress)
            for run in self.running
        ]

    def task(self, name: str) -> Task[..., Any]:
        return self._tasks[name]

    def ttl(self, task: Task[..., Any], ending: Ending) -> float:
        """Seconds to keep the job: a cancellation may meet any attempt that did not succeed, so those have the long one."""
        if ending == "succeeded":
            return self._result_ttl if task.result_ttl is None else task.result_ttl
        return max(self._settings.failure_ttl, 1.0)

    def _returned(self, task: Task[..., Any], run: Run, result: object) -> Outcome:
        """The outcome of a handler that returned something, or after it had finished the job itself."""
        if run.committed:
            return self._failure(task, run, "the transaction of finish_in was rolled back")
        try:
            return Outcome("succeeded", result=codec.dumps(result, f"the result of {task.name}"))
        except PayloadError as error:
            return self._raised(task, run, error)

    def _job(self, task: Task[..., Any], claimed: Claimed) -> Job:
        assert self.host is not None
        return Job(
            claimed.id, claimed.task, claimed.lane.queue, claimed.attempt, claimed.failures,
            self._max_retries(task, claimed), claimed.key, {}, self.host,
        )  # fmt: skip

    def _call(self, task: Task[..., Any], run: Run) -> Awaitable[Any]:
        payload = codec.loads(run.claimed.payload)
        if not task.accepts(payload):
            raise Discard(f"the payload does not fit {task.name}{task.signature}: {task.misfit(payload)}")
        arguments = payload
        if run.job is not None:
            run.job.payload = payload
            arguments = {**payload, "job": run.job}
        if task.is_async:
            handler: Awaitable[Any] = task.fn(**arguments)
            return handler
        return self._in_thread(task, run, arguments)

    async def _in_thread(self, task: Task[..., Any], run: Run, arguments: dict[str, Any]) -> Any:
        try:
            return await _in_thread(functools.partial(contextvars.copy_context().run, task.fn, **arguments), task.name)
        except asyncio.CancelledError:
            log.warning("job %s %s was told to end, its thread goes on until it returns", run.claimed.id, task.name)
            raise

    def _stopped(self, task: Task[..., Any], run: Run) -> Outcome:
        """The outcome of a handler that was cancelled from here."""
        match run.stop:
            case "cancelled":
                return Outcome("cancelled", error="cancelled while it ran")
            case "returned" | "lost":
                return Outcome("returned", error="given back: the daemon stopped")
            case _:
                limit = task.timeout or self._settings.job_timeout
                return self._failure(task, run, f"timeout: it ran longer than {limit:g} s")

    def _raised(self, task: Task[..., Any], run: Run, error: BaseException) -> Outcome:
        """The outcome of a handler that raised."""
        if run.stop == "cancelled":
            return Outcome("cancelled", error=f"cancelled while it ran, then {_describe(error)}")
        match error:
            case Snooze():
                return Outcome("snooze", error=str(error), delay=error.delay)
            case Discard():
                return Outcome("failed", error=str(error))
            case RetryAfter():
                return self._failure(task, run, str(error), error.delay)
            case PayloadError():
                return Outcome("failed", error=str(error))
            case _:
                return self._failure(task, run, _describe(error))

    def _failure(self, task: Task[..., Any], run: Run, error: str, delay: float | None = None) -> Outcome:
        failures = run.claimed.failures + 1
        if failures > self._max_retries(task, run.claimed):
            return Outcome("failed", error=error)
        return Outcome(
            "retry",
            error=error,
            delay=task.retry.delay(failures, self._settings.retry_delay) if delay is None else delay,
        )

    def _max_retries(self, task: Task[..., Any], claimed: Claimed) -> int:
        if claimed.max_retries is not None:
            return claimed.max_retries
        return self._settings.max_retries if task.retry.max is None else task.retry.max


def _in_thread(call: Callable[[], Any], name: str) -> asyncio.Future[Any]:
    """Run a call in a thread of its own: one that never returns costs no other job its place, nor the process its end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.done():
            return  # it was cancelled meanwhile
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def work() -> None:
        result: Any = None
        problem: BaseException | None = None
        try:
            result = call()
        except StopIteration:  # no future can carry it
            problem = RuntimeError("the handler raised StopIteration")
        except BaseException as error:  # noqa: BLE001 - it is carried to the loop, whatever it is
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=work, name=f"handler {name}", daemon=True).start()
    return done


def _describe(error: BaseException) -> str:
    """What was raised, in one line, and then the traceback."""
    summary = traceback.TracebackException(type(error), error, None)
    summary.__notes__ = None  # they would come last
    first = list(summary.format_exception_only())[-1].strip().splitlines()[0]
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:  # our own frames tell the reader nothing
        trace = trace.tb_next
    return f"{first}\n{''.join(traceback.format_exception(type(error), error, trace))}"[:MAX_ERROR]
