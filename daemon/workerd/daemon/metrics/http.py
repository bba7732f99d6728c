"""HTTP on a socket that listens already, which another process may have as well."""

from __future__ import annotations

import http.server
import json
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

    from workerd.daemon.metrics.answers import Answers

SILENCE = 10.0  # seconds after which a client that says nothing is given up


class Http(http.server.ThreadingHTTPServer):
    """`GET /metrics`, `/healthz` (200 while the loops turn, else 503) and `/readyz` (200 when it can claim jobs as well)."""

    daemon_threads = True
    block_on_close = False
    timeout = 0  # where the other process was faster, nobody is waited for

    def __init__(self, listener: socket.socket, answers: Answers) -> None:
        super().__init__(listener.getsockname()[:2], _Request, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.answers = answers
        self._asked = 0
        self._changed = threading.Condition()

    def answer_all(self, timeout: float) -> None:
        """Wait until everybody has an answer, for `timeout` seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._asked, timeout)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._asked += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._asked -= 1
                self._changed.notify_all()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is not worth a word."""


class _Request(http.server.BaseHTTPRequestHandler):
    server: Http
    timeout = SILENCE
    server_version = "workerd"
    sys_version = ""

    def do_GET(self) -> None:
        answers = self.server.answers
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(200, *answers.metrics(self.headers.get("Accept", "")))
            case "/healthz" | "/readyz" as path:
                told = answers.health()
                good = told["live"] and (path == "/healthz" or told["ready"])
                self._answer(200 if good else 503, "application/json", json.dumps(told).encode() + b"\n")
            case _:
                self._answer(404, "text/plain; charset=utf-8", b"there are /metrics, /healthz and /readyz\n")

    def _answer(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Questions come every few seconds: they are not logged."""
