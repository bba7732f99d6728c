"""Rules, their tests, configurations and dashboards, as Prometheus and Alertmanager themselves read them."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.faults.claims import free_ports
from tests.support import until
from tests.system.monitoring import prometheus
from tests.watched import ALERTMANAGER, DASHBOARDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("_needed")]


@pytest.fixture(scope="module")
def _needed() -> None:
    prometheus.need()


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("--config", "docker/prometheus/prometheus.yml"),
        ("--rules", "docker/prometheus/rules.yml"),
        ("--tests", "docker/prometheus/tests.yml"),
        ("--alertmanager", "docker/alertmanager/alertmanager.yml"),
    ],
)
def test_what_lies_in_docker_is_valid(kind: str, file: str) -> None:
    done = prometheus.run("check", kind, file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_expression_of_the_dashboards_is_promql() -> None:
    done = prometheus.run("dashboards", *map(str, DASHBOARDS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_receivers_that_are_shown_can_be_uncommented(tmp_path: Path) -> None:
    text, shown = re.subn(r"^    # ", "    ", ALERTMANAGER.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert shown > 5
    file = tmp_path / "alertmanager.yml"
    file.write_text(text)
    done = prometheus.run("check", "--alertmanager", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


async def test_one_cause_is_one_alert(alertmanager: str) -> None:
    async def held_back(*expected: str) -> None:
        async def look() -> bool:
            return _held_back(alertmanager) == set(expected)

        await until(look, f"held back: {expected}")

    _post(alertmanager, "BacklogAge:warning", "FailureRate:warning", "WorkerDown:critical")
    await held_back()
    _post(alertmanager, "BacklogAge:critical")
    await held_back("BacklogAge:warning")
    _post(alertmanager, "NoLivingNode:critical")
    follows = ("BacklogAge:warning", "BacklogAge:critical", "WorkerDown:critical")
    await held_back(*follows)
    _post(alertmanager, "NoWorker:critical")
    await held_back(*follows, "NoLivingNode:critical", "FailureRate:warning")


@pytest.fixture
async def alertmanager(tmp_path: Path) -> AsyncIterator[str]:
    """The port of one with our configuration."""
    port = str(free_ports(1))
    running = subprocess.Popen(
        [
            "prometheus-alertmanager",
            f"--config.file={ALERTMANAGER}",
            f"--storage.path={tmp_path}",
            "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=subprocess.DEVNULL,
    )

    async def answers() -> bool:
        try:
            return bool(prometheus.get(port, "/api/v2/status"))
        except OSError:
            return False

    try:
        await until(answers, "Alertmanager answers")
        yield port
    finally:
        running.terminate()
        running.wait()


def _post(port: str, *alerts: str) -> None:
    labels = [dict(zip(("alertname", "severity"), alert.split(":"), strict=True)) for alert in alerts]
    body = json.dumps([{"labels": {**each, "queue": "mail"}} for each in labels]).encode()
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/api/v2/alerts", body, headers)
    urllib.request.urlopen(asked, timeout=60).close()  # noqa: S310 - ours


def _held_back(port: str) -> set[str]:
    """The alerts that are not sent since another one fires."""
    found = prometheus.get(port, "/api/v2/alerts")
    held = [alert["labels"] for alert in found if alert["status"]["inhibitedBy"]]
    return {f"{labels['alertname']}:{labels['severity']}" for labels in held}
