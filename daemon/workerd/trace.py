"""The trace that a job is part of: the context of whoever enqueued it, as W3C Trace Context writes it."""

from __future__ import annotations

import re
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST = 512  # characters of a tracestate; a longer one is left out, which W3C allows

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Trace(NamedTuple):
    """A place in a trace."""

    traceparent: str
    tracestate: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What is there, by the names that W3C gives."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    @property
    def options(self) -> str:
        """The options, JSON, of a job that asks for nothing else."""
        return orjson.dumps({"trace": self.headers}).decode()


# Of a request or a job that is served here by a process that makes no spans of its own: it is passed on.
passed_on: ContextVar[Trace | None] = ContextVar("passed_on", default=None)


def read(headers: Mapping[str, Any] | None) -> Trace | None:
    """The context that a job or a request carries; None for none and, as W3C wants it, for one that is malformed."""
    traceparent = None if headers is None else headers.get("traceparent")
    if not isinstance(traceparent, str) or not _TRACEPARENT.fullmatch(traceparent):
        return None
    tracestate = headers.get("tracestate") if headers else None
    return Trace(traceparent, tracestate if isinstance(tracestate, str) and 0 < len(tracestate) <= LONGEST else None)


def current() -> Trace | None:
    """The context of now, that of an OpenTelemetry span first. Whoever has not imported OpenTelemetry pays nothing for it."""
    api = sys.modules.get("opentelemetry.trace")
    if api is not None:
        span = api.get_current_span().get_span_context()
        if span.is_valid:
            state = span.trace_state.to_header()
            return Trace(
                f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}",
                state if 0 < len(state) <= LONGEST else None,
            )
    return passed_on.get()
