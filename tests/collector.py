"""A collector of traces: takes spans by OTLP over HTTP on loopback, and shows them."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

INTERNAL, PRODUCER, CONSUMER = 1, 4, 5
ERROR = 2


@dataclass(frozen=True)
class Span:
    name: str
    trace: str
    id: str
    parent: str  # empty: it has none
    kind: int
    links: list[str]
    status: int
    message: str
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    resource: dict[str, Any]


class Collector:
    """Used by `with`; `url` is what OTEL_EXPORTER_OTLP_ENDPOINT takes."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.spans += _spans(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Collector:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    async def span(self, name: str, **attributes: Any) -> Span:
        """The one span of this name, with these attributes (`__` stands for a dot), when it has come."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}

        async def found() -> list[Span]:
            return [span for span in self.spans if span.name == name and wanted.items() <= span.attributes.items()]

        fitting: list[Span] = await until(found, f"the span {name} comes; there are {[s.name for s in self.spans]}")
        assert len(fitting) == 1, fitting
        return fitting[0]


def _spans(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        Span(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.kind,
            [link.span_id.hex() for link in span.links],
            span.status.code,
            span.status.message,
            _values(span.attributes),
            [{"name": event.name, **_values(event.attributes)} for event in span.events],
            _values(each.resource.attributes),
        )
        for each in request.resource_spans
        for scope in each.scope_spans
        for span in scope.spans
    ]


def _values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in attributes}
