"""The children of a daemon: as many as jobs of `cpu=True` tasks run at a time, started when they are needed."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any

from workerd import codec, trace
from workerd.aio import Backoff
from workerd.daemon import own_log
from workerd.daemon.children import questions
from workerd.daemon.children.guard import Guard
from workerd.daemon.children.process import Child
from workerd.daemon.endings import Reported
from workerd.outcomes import Discard, RetryAfter, Snooze

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.config import Settings
    from workerd.daemon.run import Run
    from workerd.job import Host
    from workerd.tasks import Task

MAX_JOBS = 1000  # of one child: then a fresh one takes its place
MAX_GROWTH = 256_000_000  # bytes of resident memory that a child may keep after a job
IDLE_LIMIT = 60.0  # seconds that a child without a job is kept
START_LIMIT = 60.0  # seconds in which a child has to have imported the tasks
MAX_BACKOFF = 10.0  # seconds between two starts while none succeeds

log = logging.getLogger(__name__)


class Children:
    """Runs jobs in children, one at a time in each; keeps idle ones for the next job."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._living: set[Child] = set()
        self._idle: list[Child] = []  # the one that worked last is the last
        self._guard = Guard()
        self._turn = asyncio.Lock()
        self._backoff = Backoff(MAX_BACKOFF)

    def __len__(self) -> int:
        return len(self._living)

    async def run(self, task: Task[..., Any], run: Run, retries: int, host: Host | None) -> Any:
        """The result of the job's handler; raises what tells its end otherwise. Cancelled, the child is killed."""
        child = self._idle.pop() if self._idle else await self._start()

        async def on_told(message: dict[str, Any]) -> None:
            if message["kind"] in ("step", "keep", "wait") and host is not None:
                child.tell(await questions.answer(message, run, host))
            else:
                await _take_in(message, run, host)

        try:
            answer = await child.ask(_request(task, run, retries), on_told)
        except BaseException:
            child.kill()
            raise
        self._keep(child, answer["memory"])
        return _result(answer)

    def sweep(self) -> None:
        """End the children that have had no job for long."""
        while self._idle and self._idle[0].idle_since < monotonic() - IDLE_LIMIT:
            self._idle.pop(0).end()

    async def close(self) -> None:
        """Kill them all."""
        living = [child.ended for child in self._living]
        for child in self._living:
            child.kill()
        if living:
            await asyncio.wait(living, timeout=2.0)
        self._guard.close()

    async def _start(self) -> Child:
        """A child that is ready. While none succeeds they are started one after another, each later than the one before."""
        if not self._backoff.pause:
            return await self._try_to_start()
        async with self._turn:
            await asyncio.sleep(self._backoff.pause)
            return await self._try_to_start()

    async def _try_to_start(self) -> Child:
        settings = self._settings
        child: Child | None = None
        hello = {
            "kind": "hello",
            "path": sys.path,
            "modules": settings.tasks,
            "app_dir": str(settings.app_dir),
            "level": own_log.level(),
            "node": settings.node,
        }
        try:
            child = Context().run(Child, self._ended)  # its end is not logged within the job that is its first
            self._living.add(child)
            self._guard.watch(each.pid for each in self._living)
            async with asyncio.timeout(START_LIMIT):
                await child.prepare(hello)
        except BaseException as error:
            if child is not None:
                child.kill()
            if not isinstance(error, (Reported, OSError)):  # TimeoutError is an OSError
                raise
            reason = f"it was not ready within {START_LIMIT:.0f} s" if isinstance(error, TimeoutError) else str(error)
            self._backoff.next()
            log.error("no child process for a job: %s; the next start waits %.1f s", reason, self._backoff.pause)  # noqa: TRY400 - its text says it all
            raise Reported(f"its process could not start: {reason}") from error
        self._backoff.reset()
        return child

    def _keep(self, child: Child, memory: int) -> None:
        child.jobs += 1
        if not child.alive:
            return
        if child.jobs >= MAX_JOBS or memory > child.memory + MAX_GROWTH:
            log.info("child %s ends after %s jobs with %s MB", child.pid, child.jobs, memory // 1_000_000)
            child.end()
        else:
            child.idle_since = monotonic()
            self._idle.append(child)

    def _ended(self, child: Child) -> None:
        self._living.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        if self._living:
            self._guard.watch(each.pid for each in self._living)
        else:
            self._guard.watch(())


def _request(task: Task[..., Any], run: Run, retries: int) -> dict[str, Any]:
    job, carried = run.claimed, trace.current()
    return {
        "kind": "job",
        "task": task.name,
        "payload": job.payload,
        "id": job.id,
        "queue": job.lane.queue,
        "attempt": job.attempt,
        "failures": job.failures,
        "max_retries": retries,
        "key": job.key,
        "parents": [] if run.job is None else list(run.job.parents.items()),
        "trace": None if carried is None else carried.headers,
    }


async def _take_in(message: dict[str, Any], run: Run, host: Host | None) -> None:
    """What a child tells while its handler runs: progress, records of its log, and what the job logs."""
    if message["kind"] == "log":
        record: dict[str, Any] = message["record"]
        job = run.claimed
        log.handle(
            logging.makeLogRecord({**record, "args": (), "job": job.id, "task": job.task, "attempt": job.attempt})
        )
    elif run.job is None or host is None or message["id"] != run.claimed.id:
        return
    elif message["kind"] == "progress":
        await host.report(run.job, message["fraction"], message["message"])
    elif message["kind"] == "line":
        host.log(run.job, message["message"], message["level"])


_RAISED: dict[str, Callable[[dict[str, Any]], Exception]] = {
    "snooze": lambda answer: Snooze(answer["delay"], answer["text"]),
    "retry": lambda answer: RetryAfter(answer["delay"], answer["text"]),
    "discard": lambda answer: Discard(answer["text"]),
    "raised": lambda answer: Reported(answer["text"], again=answer["again"]),
}


def _result(answer: dict[str, Any]) -> Any:
    if answer["kind"] == "returned":
        return codec.loads(answer["text"])
    raise _RAISED[answer["kind"]](answer)
