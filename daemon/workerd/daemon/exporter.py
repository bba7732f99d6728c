"""The exporter of spans: OpenTelemetry's, by OTLP over HTTP, as its own variables configure it; a dead collector costs one line."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

AGAIN = 600.0  # seconds after which trouble that lasts is said again

log = logging.getLogger(__name__)


def provider(node: str, delay: float | None) -> TracerProvider:
    """Makes spans, and exports them from a thread of its own. `delay`: seconds that they wait for others at most."""
    logging.getLogger("opentelemetry.sdk").setLevel(
        logging.ERROR
    )  # that a full queue drops spans is said by the exporter
    ours = Resource.create({"service.name": "workerd", "service.instance.id": node})
    made = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    made.add_span_processor(
        BatchSpanProcessor(Exporter(), schedule_delay_millis=None if delay is None else delay * 1000)
    )
    return made


class _Reason(logging.Filter):
    """Keeps the exporter's lines, one or more for each attempt, out of the log, and the last one at hand."""

    last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.last = record.getMessage().partition("\n")[0]
        return False


class Exporter(OTLPSpanExporter):
    """Says once that spans are not taken, and when they are again."""

    def __init__(self) -> None:
        super().__init__()
        self._reason = _Reason()
        self._said = 0.0  # monotonic; 0: they are taken
        self._lost = 0
        logging.getLogger(trace_exporter.__name__).addFilter(self._reason)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = super().export(spans)
        except Exception as error:  # noqa: BLE001 - the processor would write a traceback for each
            self._reason.last = f"{type(error).__name__}: {error}"
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self._taken()
        else:
            self._refused(len(spans))
        return result

    def _taken(self) -> None:
        if self._said:
            log.info("traces: the collector takes spans again, %s were lost", self._lost)
        self._said, self._lost = 0.0, 0

    def _refused(self, count: int) -> None:
        self._lost += count
        if not self._said or monotonic() > self._said + AGAIN:
            self._said = monotonic()
            log.warning(
                "traces: %s does not take spans, %s are lost: %s", self._endpoint, self._lost, self._reason.last
            )
