"""The consumer's side of a trace: a span for each attempt, in which its handler runs."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, Any

from workerd import __version__, trace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from opentelemetry.trace import Span

    from workerd.queue.claim import Claimed
    from workerd.queue.finish import Finished
    from workerd.tasks import Task

    RunJob = Callable[[Claimed, asyncio.Task[Any]], Awaitable[Finished]]

_NAME = re.compile(r"[A-Za-z_][\w.]*")  # of an exception


def around(run: RunJob, tasks: Mapping[str, Task[..., Any]]) -> RunJob:
    """`run` within spans where somebody has set up OpenTelemetry, the code of the tasks or ours; else as it is, at no cost."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None or isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        return run
    return Spans(run, tasks).run


class Spans:
    """Makes them. Both parent of a span and linked to it is the span of the enqueue: each job is run for itself."""

    def __init__(self, run: RunJob, tasks: Mapping[str, Task[..., Any]]) -> None:
        from opentelemetry import trace as api
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._run = run
        self._tasks = tasks
        self._api = api
        self._tracer = api.get_tracer("workerd", __version__)
        self._extract = TraceContextTextMapPropagator().extract

    async def run(self, claimed: Claimed, worker: asyncio.Task[Any]) -> Finished:
        """Run the attempt in a span; as `Executor.run`."""
        api = self._api
        carried = trace.read((claimed.options or {}).get("trace"))
        parent = self._extract({} if carried is None else carried.headers)
        links = [] if carried is None else [api.Link(api.get_current_span(parent).get_span_context())]
        with self._tracer.start_as_current_span(
            f"run {claimed.task}",
            parent,
            api.SpanKind.CONSUMER,
            _attributes(claimed),
            links,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                ended = await self._run(claimed, worker)
            except asyncio.CancelledError:  # its job has ended before, without it
                span.set_attribute("workerd.outcome", "written off")
                span.set_status(api.StatusCode.ERROR, "it ignored its cancellation")
                raise
            self._end(span, ended)
            return ended

    def _end(self, span: Span, ended: Finished) -> None:
        outcome = ended.outcome
        span.set_attribute("workerd.outcome", outcome.ending)
        if outcome.ending not in ("failed", "retry") or not span.is_recording():
            return
        text = outcome.error or ""
        first = text.partition("\n")[0]
        kind, _, message = first.partition(": ")
        told = {"exception.type": kind} if "\n" in text and _NAME.fullmatch(kind) else {}
        if not self._tasks[ended.job.task].sensitive:  # what it says may be of what the job carries
            told |= {"exception.message": (message if told else first), "exception.stacktrace": text}
        span.add_event("exception", told)
        span.set_status(self._api.StatusCode.ERROR, told.get("exception.message") or told.get("exception.type"))


def _attributes(claimed: Claimed) -> dict[str, Any]:
    """By OpenTelemetry's conventions for messages, and what they have no name for."""
    return {
        "messaging.system": "workerd",
        "messaging.operation.type": "process",
        "messaging.operation.name": "run",
        "messaging.destination.name": claimed.lane.queue,
        "messaging.message.id": str(claimed.id),
        "workerd.task": claimed.task,
        "workerd.attempt": claimed.attempt,
    }
