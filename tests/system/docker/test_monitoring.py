"""The monitoring beside the workers. Grafana has no stand-in: where no registry is reached it is left out."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import urllib.request
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.support import until
from tests.system.docker import engine as engines
from tests.system.docker.stack import LABEL, OVERLAY, Stack
from tests.watched import PROMETHEUS, alerts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.docker.engine import Engine

pytestmark = pytest.mark.system

OFTEN = "tests/system/docker/often.yaml"
WITHOUT_GRAFANA = "tests/system/docker/without_grafana.yaml"
PORTS = ("PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT")


@pytest.fixture(scope="module")
def often(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The configuration as it lies, but all that is asked for is asked for each second."""
    text, changed = re.subn(
        r"(interval: )\d+s", r"\g<1>1s", (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    )
    assert changed == 3
    file = tmp_path_factory.mktemp("prometheus") / "prometheus.yml"
    file.write_text(text)
    return str(file)


@pytest.fixture(scope="module")
def monitored(engine: Engine, variables: dict[str, str], often: str) -> Iterator[Stack]:
    images = engines.make_monitoring(engine, variables["BASE"]) if engine.stand_ins else {}
    overlay = f"{OVERLAY}:{LABEL}:{OFTEN}" + (f":{WITHOUT_GRAFANA}" if engine.stand_ins else "")
    given = {**variables, **images, **dict.fromkeys(PORTS, "0"), "PROMETHEUS_FILE": often}
    made = Stack(engine, f"workerd-test-{uuid4().hex[:8]}", given, "monitoring", overlay)
    try:
        made.up("--scale", "worker=2")
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def prometheus(monitored: Stack) -> str:
    """Its address."""
    return monitored.address("prometheus", 9090)


def answer(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as reply:
        return json.load(reply)


async def value(address: str, query: str) -> float | None:
    found = await asyncio.to_thread(answer, address, f"/api/v1/query?query={query}")
    return float(found["data"]["result"][0]["value"][1]) if found["data"]["result"] else None


async def shows(address: str, query: str, expected: float) -> None:
    async def look() -> bool:
        return await value(address, query) == expected

    await until(look, f"{query} is {expected}", 60)


async def test_prometheus_scrapes_every_worker_and_the_database(prometheus: str) -> None:
    await shows(prometheus, "sum(up{job=%22worker%22})", 2)
    await shows(prometheus, "sum(workerd_workers)", 8)
    await shows(prometheus, "pg_up", 1)


def test_the_database_comes_with_the_monitoring_unless_there_is_one(monitored: Stack) -> None:
    assert "local-db" in monitored.compose("ps", "--services").split()
    for given in ("DATABASE_URL", "SECRETS_DIR"):
        services = monitored.compose("config", "--services", **{given: "/elsewhere"}).split()
        assert "prometheus" in services
        assert "local-db" not in services


async def test_alerts_reach_alertmanager(monitored: Stack, prometheus: str) -> None:
    assert "cluster" in await asyncio.to_thread(answer, monitored.address("alertmanager", 9093), "/api/v2/status")
    found = await asyncio.to_thread(answer, prometheus, "/api/v1/alertmanagers")
    assert [each["url"] for each in found["data"]["activeAlertmanagers"]] == ["http://alertmanager:9093/api/v2/alerts"]
    rules = await asyncio.to_thread(answer, prometheus, "/api/v1/rules")
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
