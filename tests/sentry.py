"""A Sentry on loopback: takes envelopes, and shows the events in them."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support import until

KEY = "0123456789abcdef0123456789abcdef"


class Sentry:
    """Used by `with`; `dsn` is what SENTRY_DSN takes."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.received = b""
        sentry = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                sentry.received += body
                sentry.events += _events(body)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.dsn = f"http://{KEY}@127.0.0.1:{self._server.server_port}/42"

    def __enter__(self) -> Sentry:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    async def event(self, **wanted: Any) -> dict[str, Any]:
        """The one event that has these tags, or these members, when it has come."""

        async def found() -> list[dict[str, Any]]:
            return [each for each in self.events if wanted.items() <= (each.get("tags", {}) | each).items()]

        fitting: list[dict[str, Any]] = await until(found, f"an event with {wanted} comes")
        assert len(fitting) == 1, fitting
        return fitting[0]


def _events(body: bytes) -> list[dict[str, Any]]:
    """An envelope is lines: its header, then for each item a header and a payload."""
    lines = [json.loads(line) for line in body.splitlines() if line]
    return [payload for head, payload in zip(lines[1::2], lines[2::2], strict=True) if head["type"] == "event"]
