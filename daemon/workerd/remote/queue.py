"""The queue of a process that reaches it through a manager: what `task.enqueue` uses there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, Unpack

import orjson

from workerd import codec, trace
from workerd.asked import asked
from workerd.errors import JobError, JobFailed, NotFound
from workerd.queue import enqueue, producer
from workerd.queue.client import FINAL, checked
from workerd.remote.caller import JOBS
from workerd.remote.desk import NO_DATABASE
from workerd.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from workerd.asked import Asked, Asks
    from workerd.queue.enqueue import Options
    from workerd.remote.caller import Caller
    from workerd.tasks import Task

T = TypeVar("T")

WAIT = (0.02, 0.5)  # seconds between two looks for a result: the first pause, and the longest


class RemoteQueue:
    """Has those methods of `Queue` that need no connection; the others raise JobError."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.loop = asyncio.get_running_loop()

    async def elsewhere(self) -> RemoteQueue:
        """As `Queue.elsewhere`."""
        return RemoteQueue(self._caller.another())

    async def close(self) -> None:
        """As `Queue.close`."""
        await self._caller.closed()

    def terminate(self) -> None:
        """As `Queue.terminate`."""
        self._caller.close()

    async def enqueue(
        self, task: str | Task[..., Any], payload: Mapping[str, Any] | None = None, *, queue: str | None = None,
        priority: int | None = None, delay: Duration | None = None, run_at: datetime | None = None, key: str | None = None,
        max_retries: int | None = None, **asks: Unpack[Asks],
    ) -> int:  # fmt: skip
        """As `Queue.enqueue`."""
        what, text = checked(task, payload, key, queue, priority, delay, run_at, max_retries, asks)
        body = orjson.dumps(_job(what, text) if key is None else {**_job(what, text), "key": key})

        async def write(what: Options) -> int:
            return (await self._post(body, what, dict[str, int]))["id"]

        return await (write(what) if trace.current() is None else producer.traced(what, write))

    async def enqueue_many(
        self, task: str | Task[..., Any], payloads: Sequence[Mapping[str, Any]], *, queue: str | None = None,
        priority: int | None = None, delay: Duration | None = None, run_at: datetime | None = None, max_retries: int | None = None,
        **asks: Unpack[Asks],
    ) -> list[int]:  # fmt: skip
        """As `Queue.enqueue_many`."""
        what = enqueue.options(task, queue, priority, delay, run_at, max_retries, asked(asks) if asks else None)
        if not payloads:
            return []
        body = orjson.dumps([_job(what, enqueue.payload_text(task, payload)) for payload in payloads])

        async def write(what: Options) -> list[int]:
            return (await self._post(body, what, dict[str, list[int]]))["ids"]

        return await (write(what) if trace.current() is None else producer.traced(what, write, len(payloads)))

    async def _post(self, body: bytes, what: Options, kind: type[dict[str, T]]) -> dict[str, T]:
        headers = None if what.trace is None else what.trace.headers
        made: dict[str, T] = await self._caller.ask_raw("POST", JOBS, body, kind, headers=headers)
        return made

    async def result(self, job_id: int, timeout: Duration | None = None) -> Any:
        """As `Queue.result`."""
        async with asyncio.timeout(None if timeout is None else parse_duration(timeout)):
            wait, longest = WAIT
            while (job := await self._show(job_id))["state"] not in FINAL:
                await asyncio.sleep(wait)
                wait = min(wait * 1.3, longest)
        if job["state"] != "succeeded":
            reason = (job["error"] or "no reason given").splitlines()[0]
            raise JobFailed(f"job {job_id} {job['state']}: {reason}")
        return job["result"]

    async def signal(self, job_id: int, event: str, payload: Any = None) -> bool:
        """As `Queue.signal`."""
        body = orjson.dumps(
            {"event": event, "payload": orjson.Fragment(codec.dumps(payload, f"the payload of {event}"))}
        )
        path = f"/api/v1/jobs/{job_id}/signal"
        told: dict[str, Any] = await self._caller.ask_raw("POST", path, body, dict[str, Any])
        return bool(told["first"])

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise JobError(f"{name}: {NO_DATABASE}")

    async def _show(self, job_id: int) -> dict[str, Any]:
        try:
            found: dict[str, Any] = await self._caller.ask("GET", f"/api/v1/jobs/{job_id}", None, dict[str, Any])
        except NotFound as error:
            raise NotFound(f"there is no job {job_id} (never enqueued, or its result is not kept any more)") from error
        return found


def _job(what: Options, text: str) -> dict[str, Any]:
    """A job as the manager takes it: what is not given is left out."""
    given = {
        "queue": what.queue, "priority": what.priority, "run_at": what.run_at, "max_retries": what.max_retries,
        "delay": None if what.delay is None else what.delay.total_seconds(),
    }  # fmt: skip
    asks = {} if what.asked is None else _asks(what.asked)
    return {
        "task": what.task,
        "payload": orjson.Fragment(text),
        **{k: v for k, v in given.items() if v is not None},
        **asks,
    }


def _asks(asked: Asked) -> dict[str, Any]:
    names = {"after": "after", "need": "after_need", "end": "after_end"}
    told = {
        names.get(name, name): value for name, value in asked._asdict().items() if value != asked._field_defaults[name]
    }
    if asked.deadline_in is not None:
        told["deadline_in"] = asked.deadline_in.total_seconds()
    return told
