"""A real Prometheus asks a real daemon: every panel has data, and an alert reaches who is to be told."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import fresh_database
from tests.support import LIMIT, DaemonProcess
from tests.system.monitoring.prometheus import Prometheus, get, need
from tests.watched import dashboards, expressions
from workerctl.control import ask
from workerd import SyncQueue
from workerd.settings import Settings

if TYPE_CHECKING:
    import queue as queues
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

VARIABLES = {"__rate_interval": "1m", "queue": "default", "task": ".*", "node": ".*"}


@dataclass
class Watched:
    """A daemon with all that watches it, and a second one that nobody asks, with a queue of its own."""

    daemon: DaemonProcess
    doomed: DaemonProcess
    address: str  # of the metrics
    prometheus: Prometheus
    queue: SyncQueue


@pytest.fixture(scope="module")
def watched(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    need()
    home = tmp_path_factory.mktemp("watched")
    with asyncio.Runner() as runner, ExitStack() as stack:
        fresh = fresh_database(server, template)
        dsn = runner.run(_next(fresh))
        assert dsn is not None
        stack.callback(lambda: runner.run(_next(fresh)))
        daemon = stack.enter_context(DaemonProcess(_settings(dsn, home / "first", queues=("default",))))
        daemon.start()
        address = str(ask(daemon.settings.socket_path, "status")["metrics"])
        doomed = stack.enter_context(DaemonProcess(_settings(dsn, home / "second", name="second", queues=("doomed",))))
        doomed.start()
        prometheus = stack.enter_context(Prometheus(home / "prometheus", address.split(":")[2].partition("/")[0]))
        yield Watched(daemon, doomed, address, prometheus, stack.enter_context(SyncQueue.connect(dsn)))


async def _next(database: AsyncIterator[str]) -> str | None:
    """Its address; the second time it is dropped."""
    return await anext(database, None)


def _settings(dsn: str, home: Path, **more: object) -> Settings:
    given = {
        "database_url": dsn,
        "tasks": ("tests.handlers",),
        "workers": 4,
        "heartbeat_interval": 0.5,
        "enable_metrics": True,
        "metrics_port": 0,
        "state_dir": home / "state",
        "runtime_dir": home / "run",
        "log_dir": home / "log",
        **more,
    }
    return Settings(**given)  # type: ignore[arg-type]


def _filled_in(text: str) -> str:
    return re.sub(r"\$(\w+)", lambda found: VARIABLES[found[1]], text)


def test_every_panel_has_data_while_jobs_run_and_fail(watched: Watched) -> None:
    without = dict(expressions())
    assert len(without) > 60
    end = time.monotonic() + LIMIT
    while without and time.monotonic() < end:
        watched.queue.enqueue_many("nap", [{"seconds": 0.05}] * 5)
        watched.queue.enqueue_many("failing", [{"number": 1}] * 2)
        watched.queue.enqueue("stumble", {"until_attempt": 2})
        for where, expression in list(without.items()):
            if any(value == value for value in watched.prometheus.query(_filled_in(expression))):  # not NaN
                del without[where]
        time.sleep(0.2)
    assert without == {}


def test_every_variable_of_the_dashboards_has_values(watched: Watched) -> None:
    for dashboard in dashboards():
        for variable in dashboard["templating"]["list"]:
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert found is not None
            assert watched.prometheus.values(_filled_in(found[1]), found[2]), variable["name"]


def test_what_the_daemon_tells_is_as_prometheus_wants_it(watched: Watched) -> None:
    text = urllib.request.urlopen(watched.address, timeout=60).read()  # noqa: S310 - ours
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "", "")


def test_a_node_that_dies_with_jobs_in_its_hands_is_told_of(watched: Watched) -> None:
    watched.queue.enqueue("nap", {"seconds": 300}, queue="doomed")
    _until_busy(watched.doomed)
    assert watched.prometheus.query('ALERTS{alertname="JobsRescued"}') == []
    watched.doomed.kill()
    told = _told_of(watched.prometheus.sent, "JobsRescued")
    assert told["status"] == "firing"
    assert told["labels"]["severity"] == "warning"
    assert told["annotations"]["summary"] == "jobs taken back from nodes that died: 1"
    assert told["annotations"]["runbook_url"] == "docs/runbooks/jobs-rescued.md"


def test_all_rules_are_asked_without_error(watched: Watched) -> None:
    groups = get(watched.prometheus.port, "/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 15
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    assert {rule["name"] for rule in rules if rule["alerts"]} <= {"JobsRescued", "FailureRate"}, "nothing else is wrong"


def _until_busy(daemon: DaemonProcess) -> None:
    end = time.monotonic() + LIMIT
    while not ask(daemon.settings.socket_path, "status")["busy"]:
        assert time.monotonic() < end
        time.sleep(0.05)


def _told_of(sent: queues.Queue[dict[str, Any]], name: str) -> dict[str, Any]:
    """The alert of that name, when the webhook is sent it."""
    while True:
        alerts: list[dict[str, Any]] = sent.get(timeout=LIMIT)["alerts"]
        for alert in alerts:
            if alert["labels"]["alertname"] == name:
                return alert
