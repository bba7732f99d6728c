"""The queue of a process that reaches it through a manager: what `task.enqueue` uses there."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, Unpack

import orjson

from workerd import codec, trace
from workerd.errors import JobError, NotFound
from workerd.queue import enqueue, producer, results
from workerd.remote.caller import JOBS
from workerd.remote.desk import NO_DATABASE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workerd.asked import BatchOptions, EnqueueOptions, JobOptions
    from workerd.remote.caller import Caller
    from workerd.tasks import Task
    from workerd.units import Duration

T = TypeVar("T")

FIRST_PAUSE = 0.02  # seconds between two looks for a result


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
        self,
        task: str | Task[..., Any],
        payload: Mapping[str, Any] | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> int:
        """As `Queue.enqueue`."""
        what = enqueue.options(task, options)
        body = orjson.dumps(_job(what, enqueue.payload_text(task, {} if payload is None else payload)))

        async def write(what: JobOptions) -> int:
            return (await self._post(body, what, dict[str, int]))["id"]

        return await (write(what) if trace.current() is None else producer.traced(what, write))

    async def enqueue_many(
        self, task: str | Task[..., Any], payloads: Sequence[Mapping[str, Any]], **options: Unpack[BatchOptions]
    ) -> list[int]:
        """As `Queue.enqueue_many`."""
        what = enqueue.options(task, options)
        enqueue.refuse_keys(what)
        if not payloads:
            return []
        body = orjson.dumps([_job(what, enqueue.payload_text(task, payload)) for payload in payloads])

        async def write(what: JobOptions) -> list[int]:
            return (await self._post(body, what, dict[str, list[int]]))["ids"]

        return await (write(what) if trace.current() is None else producer.traced(what, write, len(payloads)))

    async def _post(self, body: bytes, what: JobOptions, kind: type[dict[str, T]]) -> dict[str, T]:
        headers = None if what.trace is None else what.trace.headers
        made: dict[str, T] = await self._caller.ask_raw("POST", JOBS, body, kind, headers=headers)
        return made

    async def result(self, job_id: int, timeout: Duration | None = None) -> Any:
        """As `Queue.result`."""

        async def look() -> tuple[str, Any, str | None]:
            job = await self._show(job_id)
            return job["state"], job["result"], job["error"]

        return await results.wait(job_id, look, FIRST_PAUSE, timeout)

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
            raise results.missing(job_id) from error
        return found


def _job(what: JobOptions, text: str) -> dict[str, Any]:
    """A job as the manager takes it: what is not given is left out."""
    return {"task": what.task, "payload": orjson.Fragment(text), **dict(_member(*each) for each in what.given.items())}


def _member(name: str, value: Any) -> tuple[str, Any]:
    """An argument of `workerd.enqueue` as JSON: durations are seconds."""
    if not isinstance(value, timedelta):
        return name, value
    return "deadline_in" if name == "deadline" else name, value.total_seconds()
