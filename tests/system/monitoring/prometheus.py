"""Prometheus and Alertmanager of the testbed, and a webhook that alerts are sent to."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.claims import free_ports
from tests.support import ROOT

if TYPE_CHECKING:
    from types import TracebackType

SCRIPT = Path(os.environ.get("TESTBED", ROOT.parent / "shared" / "testbed")) / "monitoring.sh"


def need() -> None:
    """Skip where the testbed is not, or cannot have what it runs."""
    if not SCRIPT.is_file():
        pytest.skip("the testbed is not here: set TESTBED")
    done = run("check")
    if done.returncode:
        pytest.skip(f"Prometheus cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of the testbed's script."""
    return subprocess.run(
        [SCRIPT, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def get(port: str, path: str, **query: str) -> Any:
    address = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{query}: {error.read().decode()}") from error


class Webhook(BaseHTTPRequestHandler):
    received: queue.Queue[dict[str, Any]]

    def do_POST(self) -> None:
        self.received.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Prometheus:
    """Both, with the rules as they lie, asking one daemon each second; `sent` has what the webhook was sent."""

    def __init__(self, directory: Path, target: str) -> None:
        self._directory = directory
        self._target = target
        first = free_ports(2)
        self.port, self.alertmanager = str(first), str(first + 1)
        self.sent: queue.Queue[dict[str, Any]] = queue.Queue()

    def __enter__(self) -> Prometheus:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Hook", (Webhook,), {"received": self.sent}))
        threading.Thread(target=self._server.serve_forever, name="webhook", daemon=True).start()
        ports = {
            "PROMETHEUS_PORT": self.port,
            "ALERTMANAGER_PORT": self.alertmanager,
            "WEBHOOK_PORT": str(self._server.server_address[1]),
        }
        done = run("up", str(self._directory), self._target, "docker/prometheus/rules.yml", **ports)
        assert done.returncode == 0, done.stderr
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run("down", str(self._directory))
        self._server.shutdown()
        self._server.server_close()

    def query(self, expression: str) -> list[float]:
        found = get(self.port, "/api/v1/query", query=expression)["data"]["result"]
        return [float(each["value"][1]) for each in found]

    def values(self, metric: str, label: str) -> list[str]:
        """What Grafana offers for a variable `label_values(metric, label)`."""
        found: list[str] = get(self.port, f"/api/v1/label/{label}/values", **{"match[]": metric})["data"]
        return found
