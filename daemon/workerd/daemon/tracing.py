"""Traces of a process that runs jobs: begun where the environment says where they are to go, flushed when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING

from workerd.daemon.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from workerd.trace import Trace

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
FLUSH_LIMIT = 3.0  # seconds that the last spans may take when the daemon stops

log = logging.getLogger(__name__)


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables say that there are to be traces."""
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return any(environ.get(name) for name in ENDPOINTS) and not off and exporter in ("", "otlp")


def start(node: str, delay: float | None = None) -> None:
    """Export spans from now on, if that is wanted; where the code of the tasks has set up OpenTelemetry, that is used as it is.

    `delay`: seconds that spans wait for others at most.
    """
    if not is_wanted(os.environ):
        return
    try:
        from opentelemetry import trace

        from workerd.daemon.exporter import provider
    except ModuleNotFoundError as error:
        log.warning("no traces, although an OTLP endpoint is set: pip install 'workerd[otel]' (%s)", error)
        return
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider(node, delay))


async def flush() -> None:
    """Let the last spans go; returns when they have, or when there is no time left."""
    api = sys.modules.get("opentelemetry.trace")
    force_flush = None if api is None else getattr(api.get_tracer_provider(), "force_flush", None)
    if force_flush is None:
        return
    try:
        async with asyncio.timeout(FLUSH_LIMIT):
            await in_thread("traces", force_flush)
    except Exception as error:  # noqa: BLE001 - whatever it is, the daemon ends
        log.warning("traces: the last spans are lost: %s", str(error) or f"not taken within {FLUSH_LIMIT:g} s")


@contextlib.contextmanager
def within(carried: Trace | None) -> Iterator[None]:
    """In the trace of another process, for code that makes spans here."""
    if carried is None or "opentelemetry.trace" not in sys.modules:
        yield
        return
    from opentelemetry import context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    token = context.attach(TraceContextTextMapPropagator().extract(carried.headers))
    try:
        yield
    finally:
        context.detach(token)
