"""Steps and waits of the jobs of this daemon: what has succeeded before is not done again, who waits for an answer holds no worker."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from workerd import codec, handler
from workerd.daemon.threads import in_thread
from workerd.errors import LeaseLost
from workerd.outcomes import Snooze
from workerd.units import LONGEST, format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from workerd.daemon.run import Run
    from workerd.daemon.transport.base import Desk
    from workerd.job import Job


class Steps:
    """`run_of` finds the run of a job, None when this daemon does not run it any more."""

    def __init__(self, desk: Desk, run_of: Callable[[Job], Run | None]) -> None:
        self._desk = desk
        self._run_of = run_of
        self._loop = asyncio.get_running_loop()

    async def step(self, job: Job, name: str, call: Callable[[], Any]) -> Any:
        """For a handler on the loop. A plain function is called in a thread, which keeps no daemon from ending."""
        if await self.is_done(job, name):
            return self.result(job, name)
        result = call() if handler.is_async(call) else await in_thread(f"step {name}", call)
        return await self.keep(job, name, await handler.awaited(result))

    def step_in_thread(self, job: Job, name: str, call: Callable[[], Any]) -> Any:
        """For a handler in a thread, in which a plain function is called as well."""
        if self.in_thread(self.is_done(job, name)):
            return self.result(job, name)
        result = call()
        if inspect.isawaitable(result):
            result = self.in_thread(handler.awaited(result))
        return self.in_thread(self.keep(job, name, result))

    async def wait_for(self, job: Job, event: str, timeout: float | None) -> Any:
        """The answer. Raises Snooze while there is none, TimeoutError when it did not come in time."""
        limit = LONGEST if timeout is None else timeout
        answer, left = await self._desk.look(self._run(job).claimed, event, limit)
        if answer is not None:
            return codec.loads(answer)
        if left is None:
            raise self._lost(job)
        if not left:
            raise TimeoutError(f"job {job.id} was not told {event} in time")
        raise Snooze(left, f"waits for {event}" + ("" if timeout is None else f", {format_duration(left)} at most"))

    def in_thread(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What the loop makes of it, awaited by a thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def is_done(self, job: Job, name: str) -> bool:
        if job.steps is None:
            known = await self._desk.steps(self._run(job).claimed) if job.attempt > 1 else {}  # none before the first
            if job.steps is None:  # a step beside this one may have been quicker
                job.steps = known
        return name in job.steps

    def result(self, job: Job, name: str) -> Any:
        assert job.steps is not None
        return codec.loads(job.steps[name])

    async def keep(self, job: Job, name: str, result: object) -> Any:
        """What a step returned, as it will be returned from now on."""
        assert job.steps is not None
        text = codec.dumps(result, f"the result of the step {name}")
        kept = await self._desk.keep_step(self._run(job).claimed, name, text)
        if kept is None:
            raise self._lost(job)
        job.steps[name] = kept
        return codec.loads(kept)

    def _run(self, job: Job) -> Run:
        run = self._run_of(job)
        if run is None:
            raise self._lost(job)
        return run

    @staticmethod
    def _lost(job: Job) -> LeaseLost:
        return LeaseLost(f"job {job.id} is not run by this daemon any more")
