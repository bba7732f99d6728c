"""The producer's side of a trace: a span for each enqueue, whose context goes along with the jobs."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from workerd import trace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workerd.asked import JobOptions

R = TypeVar("R")

SYSTEM = "workerd"


async def traced(what: JobOptions, write: Callable[[JobOptions], Awaitable[R]], jobs: int | None = None) -> R:
    """What `write` returns, an id or ids, of an enqueue in the trace of now. `jobs`: how many, where it writes many at once."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None or not api.get_current_span().get_span_context().is_valid:  # somebody else's, that is passed on
        return await write(replace(what, trace=trace.current()))
    from workerd import __version__

    tracer = api.get_tracer("workerd", __version__)
    with tracer.start_as_current_span(
        f"enqueue {what.task}", kind=api.SpanKind.PRODUCER, attributes=_attributes(what, jobs)
    ) as span:
        written = await write(replace(what, trace=trace.current()))
        if jobs is None:
            span.set_attribute("messaging.message.id", str(written))
        return written


def _attributes(what: JobOptions, jobs: int | None) -> dict[str, Any]:
    """By OpenTelemetry's conventions for messages. The queue is not known here where the task's own is meant."""
    known = {"messaging.destination.name": what.given.get("queue"), "messaging.batch.message_count": jobs}
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.type": "send",
        "messaging.operation.name": "enqueue",
        "workerd.task": what.task,
        **{name: value for name, value in known.items() if value is not None},
    }
