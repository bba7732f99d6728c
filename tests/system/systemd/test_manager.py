"""The manager as a service of a real systemd: ready when it answers, started again when it dies or hangs, closed without a token."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.faults.claims import free_ports
from tests.support import LIMIT, until
from workerd.queue import tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

    from tests.system.systemd.machine import Machine
    from tests.system.systemd.unit import Unit

    DB = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.system

UNIT = "invoice-worker-manager"


@pytest.fixture
def address(unit: Unit, machine: Machine) -> Iterator[str]:
    """Where the manager of the installed unit will listen; it is stopped at the end."""
    port = free_ports(1)
    _settings(machine, f"MANAGER_PORT={port}")
    yield f"http://127.0.0.1:{port}"
    machine.try_run("systemctl", "stop", UNIT)


def _settings(machine: Machine, *lines: str) -> None:
    with (machine.root / "etc/invoice-worker/worker.env").open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


async def _killed(machine: Machine, number: int) -> None:
    """Send a signal to the manager; returns when another process has taken its place."""
    pid = machine.show(UNIT, "MainPID")
    machine.run("systemctl", "kill", "--kill-whom=main", f"--signal={number}", UNIT)

    async def another() -> bool:
        return machine.show(UNIT, "MainPID") not in ("0", pid) and machine.show(UNIT, "ActiveState") == "active"

    await until(another, "the manager is started again", 60.0)


async def test_it_answers_when_it_is_active_and_says_where(address: str, machine: Machine, db: DB) -> None:
    machine.run("systemctl", "start", UNIT)
    assert machine.show(UNIT, "StatusText") == address
    token = await tokens.create(db, "operator", ["operate"])
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=LIMIT) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post("/api/v1/jobs", json={"task": "echo", "payload": {"value": 1}})).status_code == 201
    assert await db.fetchval("SELECT count(*) FROM workerd.ready") == 1
    machine.run("systemctl", "stop", UNIT)
    assert machine.show(UNIT, "Result") == "success"


async def test_it_is_started_again_when_it_dies_or_hangs(address: str, machine: Machine) -> None:
    machine.write(f"/etc/systemd/system/{UNIT}.service.d/test.conf", "[Service]\nWatchdogSec=5s\nRestartSec=100ms\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", UNIT)
    await _killed(machine, signal.SIGKILL)
    await _killed(machine, signal.SIGSTOP)
    async with httpx.AsyncClient(base_url=address, timeout=LIMIT) as client:
        assert (await client.get("/readyz")).status_code == 200
    assert int(machine.show(UNIT, "NRestarts")) == 2


async def test_it_does_not_listen_beyond_loopback_without_a_token(address: str, machine: Machine) -> None:
    _settings(machine, "MANAGER_HOST=0.0.0.0")
    assert (await asyncio.to_thread(machine.try_run, "systemctl", "start", UNIT)).returncode != 0
    assert "there is no token yet" in machine.journal(UNIT)
    assert machine.show(UNIT, "ActiveState") == "failed", "it is not tried again"
