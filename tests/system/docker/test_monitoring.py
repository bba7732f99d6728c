"""The monitoring beside the workers. Grafana has no stand-in: where no registry is reached it is left out."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.request
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.support import until
from tests.system.docker import engine as engines
from tests.system.docker.stack import OVERLAY, Stack
from tests.watched import alerts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.docker.engine import Engine

pytestmark = pytest.mark.system

WITHOUT_GRAFANA = "tests/system/docker/without_grafana.yaml"
PORTS = ("PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT")


@pytest.fixture(scope="module")
def ports() -> dict[str, str]:
    """Ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    found = {name: str(each.getsockname()[1]) for name, each in zip(PORTS, sockets, strict=True)}
    for each in sockets:
        each.close()
    return found


@pytest.fixture(scope="module")
def monitored(engine: Engine, variables: dict[str, str], ports: dict[str, str]) -> Iterator[Stack]:
    images = engines.make_monitoring(engine, variables["BASE"]) if engine.stand_ins else {}
    overlay = f"{OVERLAY}:{WITHOUT_GRAFANA}" if engine.stand_ins else OVERLAY
    given = {**variables, **images, **ports}
    made = Stack(engine, f"workerd-test-{uuid4().hex[:8]}", given, "monitoring", overlay)
    try:
        made.up("--scale", "worker=2")
        yield made
    finally:
        made.down()


def answer(port: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
        return json.load(reply)


async def value(port: str, query: str) -> float | None:
    found = await asyncio.to_thread(answer, port, f"/api/v1/query?query={query}")
    return float(found["data"]["result"][0]["value"][1]) if found["data"]["result"] else None


async def shows(port: str, query: str, expected: float) -> None:
    async def look() -> bool:
        return await value(port, query) == expected

    await until(look, f"{query} is {expected}", 60)


@pytest.mark.usefixtures("monitored")
async def test_prometheus_scrapes_every_worker_and_the_database(ports: dict[str, str]) -> None:
    port = ports["PROMETHEUS_PORT"]
    await shows(port, "sum(up{job=%22worker%22})", 2)
    await shows(port, "sum(workerd_workers)", 8)
    await shows(port, "pg_up", 1)


def test_the_database_comes_with_the_monitoring_unless_there_is_one(monitored: Stack) -> None:
    assert "local-db" in monitored.compose("ps", "--services").split()
    for given in ("DATABASE_URL", "SECRETS_DIR"):
        services = monitored.compose("config", "--services", **{given: "/elsewhere"}).split()
        assert "prometheus" in services
        assert "local-db" not in services


@pytest.mark.usefixtures("monitored")
async def test_alerts_reach_alertmanager(ports: dict[str, str]) -> None:
    assert "cluster" in await asyncio.to_thread(answer, ports["ALERTMANAGER_PORT"], "/api/v2/status")
    found = await asyncio.to_thread(answer, ports["PROMETHEUS_PORT"], "/api/v1/alertmanagers")
    assert [each["url"] for each in found["data"]["activeAlertmanagers"]] == ["http://alertmanager:9093/api/v2/alerts"]
    rules = await asyncio.to_thread(answer, ports["PROMETHEUS_PORT"], "/api/v1/rules")
    loaded = [rule for group in rules["data"]["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in loaded} <= {"ok", "unknown"}
    assert {rule["name"] for rule in loaded} == {alert["alert"] for alert in alerts()}


def test_a_port_that_is_taken_is_one_clear_line(monitored: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = monitored.tried("up", "--detach", "--no-deps", "--no-build", "prometheus", PROMETHEUS_PORT=port)
    assert done.returncode != 0
    complaints = [line for line in done.stderr.splitlines() if "Error" in line or "rror response" in line]
    assert len(complaints) == 1, done.stderr
    assert port in complaints[0]
    assert "in use" in complaints[0] or "allocated" in complaints[0]
