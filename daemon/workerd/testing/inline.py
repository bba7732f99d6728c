"""A handler run right here, without a database and without a daemon."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from workerd import codec, handler
from workerd.daemon.done import Done
from workerd.errors import JobError
from workerd.job import Job
from workerd.queue.enqueue import payload_text
from workerd.resources import Resources
from workerd.testing.record import Record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from workerd.job import AnyTransaction
    from workerd.tasks import Task


async def run(
    task: Task[..., Any],
    payload: Mapping[str, Any] | None = None,
    *,
    answers: Mapping[str, Any] | None = None,
    attempt: int = 1,
    failures: int = 0,
    max_retries: int = 0,
    record: Record | None = None,
) -> Any:
    """Run the task's handler here and return its result, both payload and result having been JSON on the way.

    `answers` are those that `job.wait_for` gets, by event; `record` takes what the handler says. A plain `def` runs in a thread, also
    with `cpu=True`. Whatever the handler raises is raised; PayloadError when the payload
    does not fit or is not JSON.
    """
    carried = codec.loads(payload_text(task, {} if payload is None else payload))
    arguments = task.arguments.restored(carried)
    host = _Here(answers or {}, Record() if record is None else record)
    if task.wants_job:
        job = Job(0, task.name, task.queue, attempt, failures, max_retries, None, carried, host)
        arguments = {**arguments, "job": job}
    resources = Resources()
    try:
        arguments = {**arguments, **await resources.get(task.resources)}
        made = task.fn(**arguments) if task.is_async else await asyncio.to_thread(task.fn, **arguments)
        result = await handler.awaited(made)
    finally:
        await resources.close()
    return codec.loads(codec.dumps(result, f"the result of {task.name}"))


class _Here:
    """The `Host` of a job that no database knows."""

    def __init__(self, answers: Mapping[str, Any], record: Record) -> None:
        self._answers = answers
        self._record = record
        self._steps: dict[str, str] = {}  # results, as JSON
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def report(self, _job: Job, fraction: float, message: str | None) -> Awaitable[None]:
        self._record.progress.append((fraction, message))
        return Done()

    def log(self, _job: Job, message: str, level: str) -> None:
        self._record.lines.append((level, message))

    def step(self, _job: Job, name: str, call: Callable[[], Any]) -> Any:
        return self._step(name, call) if self._on_loop else self._step_in_thread(name, call)

    def wait_for(self, _job: Job, event: str, _timeout: float | None) -> Any:
        return self._answer_later(event) if self._on_loop else self._answer(event)

    def connection(self) -> NoReturn:
        raise JobError(
            "a handler that is run inline has no database: give it a daemon and a queue to use job.connection()"
        )

    def finish_in(self, _job: Job, _connection: AnyTransaction, _result: object) -> NoReturn:
        raise JobError(
            "a handler that is run inline has no database: give it a daemon and a queue to use job.finish_in()"
        )

    @property
    def _on_loop(self) -> bool:
        return threading.get_ident() == self._thread

    async def _step(self, name: str, call: Callable[[], Any]) -> Any:
        if name not in self._steps:
            result = call() if handler.is_async(call) else await asyncio.to_thread(call)
            self._keep(name, await handler.awaited(result))
        return codec.loads(self._steps[name])

    def _step_in_thread(self, name: str, call: Callable[[], Any]) -> Any:
        if name not in self._steps:
            result = call()
            if inspect.isawaitable(result):
                result = asyncio.run_coroutine_threadsafe(handler.awaited(result), self._loop).result()
            self._keep(name, result)
        return codec.loads(self._steps[name])

    def _keep(self, name: str, result: object) -> None:
        self._steps[name] = codec.dumps(result, f"the result of the step {name}")
        self._record.steps.append(name)

    async def _answer_later(self, event: str) -> Any:
        return self._answer(event)

    def _answer(self, event: str) -> Any:
        if event not in self._answers:
            raise JobError(f"the handler waits for {event}, which is not in answers: run(task, payload, answers={{…}})")
        return self._answers[event]
