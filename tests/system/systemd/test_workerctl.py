"""workerctl on units: what it does is what systemctl and journalctl do, and it is right to read."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import until_state
from tests.system.systemd.machine import PYTHON
from tests.system.systemd.terminal import Terminal
from tests.system.systemd.unit import UNIT

if TYPE_CHECKING:
    import asyncpg

    from tests.system.systemd.machine import Machine
    from tests.system.systemd.unit import Unit
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.system

CTL = (PYTHON, "-m", "workerctl")
SETTINGS = "/etc/invoice-worker/worker.env"


async def test_workerctl_speaks_to_the_unit(unit: Unit, machine: Machine) -> None:
    assert machine.ctl("status").returncode == 3
    assert "ready after" in machine.ctl("start", "3").stdout
    assert machine.ctl("scale", "6").stdout == "worker (systemd): 6 workers (were 3)\n"
    assert "nothing changed" in machine.ctl("start").stdout
    operator = ("setpriv", "--reuid", "nobody", "--regid", "invoice-worker", "--clear-groups")
    asked = machine.run(*operator, "/opt/worker/bin/python", "-m", "workerctl", "status", "--json")
    assert json.loads(asked)["workers"] == 6
    stranger = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups")
    refused = machine.try_run(*stranger, "/opt/worker/bin/python", "-m", "workerctl", "status")
    assert (refused.returncode, "member of its group" in refused.stderr) == (1, True)
    assert machine.ctl("stop", "--now").stdout == "worker stopped (systemd)\n"
    assert machine.show(UNIT, "ActiveState") == "inactive"


async def test_a_start_that_fails_says_why(unit: Unit, machine: Machine) -> None:
    unit.install("--tasks", "tests.system.systemd.nothing")
    done = machine.ctl("start")
    assert done.returncode == 1
    assert "tests.system.systemd.nothing" in done.stderr


async def test_the_journal_and_workerctl_logs_have_the_same_lines(unit: Unit, machine: Machine, queue: Queue) -> None:
    unit.start()
    commands = (
        machine.command("/opt/worker/bin/python", "-u", "-m", "workerctl", "logs", "-f", "--lines", "3"),
        machine.command("journalctl", "-f", "-n", "3", "-o", "cat", "-u", UNIT),
    )
    readers = [
        await asyncio.create_subprocess_exec(*each, stdout=subprocess.PIPE, start_new_session=True) for each in commands
    ]
    try:
        told = [[await _line(reader) for _ in range(3)] for reader in readers]
        await queue.enqueue("echo", {"value": "one"})
        for reader, lines in zip(readers, told, strict=True):
            lines.append(await _line(reader))
    finally:
        for reader in readers:
            os.killpg(reader.pid, signal.SIGKILL)  # with what runs inside
    assert told[0] == told[1]
    assert "echo" in told[0][-1]


async def test_status_fits_a_terminal_of_80_columns(unit: Unit, machine: Machine, queue: Queue, db: DB) -> None:
    unit.install("--workers", "3")
    unit.start()
    job = await queue.enqueue("nap", {"seconds": 20})
    await until_state(db, job, "running")
    with Terminal(machine.command(*CTL, "status")) as terminal:
        await terminal.until_shows("└────────┴")
        shown = terminal.screen()
        assert terminal.lines() == shown  # the terminal had to break none
    assert shown[0] == "worker (systemd)"
    framed = [line for line in shown if line.startswith("│")]
    assert {line[-1] for line in framed} == {"│"}
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in framed]
    assert ["state", "running"] in cells
    assert ["workers", "3, 1 busy"] in cells
    assert ["busy", str(job), "nap"] in [cell[1:4] for cell in cells]
    assert machine.ctl("stop", "--now").returncode == 0


async def test_logs_on_a_terminal_are_lines_for_people(unit: Unit, machine: Machine, queue: Queue) -> None:
    unit.start()
    with Terminal(machine.command(*CTL, "logs", "--follow", "--lines", "5")) as terminal:
        await terminal.until_shows("ready")
        job = await queue.enqueue("echo", {"value": "one"})
        await terminal.until_shows(f"[job {job} echo #1]")
        shown = terminal.lines()
    assert re.match(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d INFO    \[job {job} echo #1\] job {job} echo succeeded", shown[-1]
    ), shown
    assert not [line for line in shown if line.startswith("{")]


def test_without_a_terminal_they_are_plain(unit: Unit, machine: Machine) -> None:
    unit.start()
    status, logs = machine.ctl("status").stdout, machine.ctl("logs", "--lines", "4").stdout
    assert status.startswith("worker (systemd)")
    assert not set("\x1b│─") & set(status + logs)
    assert logs.splitlines() == machine.journal(UNIT).splitlines()[-4:]


def test_reload_and_restart_are_the_units(unit: Unit, machine: Machine) -> None:
    unit.start()
    first = unit.pid
    done = machine.ctl("reload")
    second = unit.pid
    assert f"worker reloaded (systemd): PID {second} took over from {first}" in done.stdout, done.stderr
    done = machine.ctl("restart", "5")
    assert f"worker started (systemd, invoice-worker.service, PID {unit.pid})" in done.stdout, done.stderr
    assert (second != unit.pid, unit.status()["workers"]) == (True, 5)


def test_health_is_that_of_the_unit(unit: Unit, machine: Machine) -> None:
    assert machine.ctl("health", "--runtime", "systemd").returncode == 3
    unit.start()
    for probe in (("health",), ("health", "--ready")):
        assert machine.ctl(*probe).returncode == 0


def test_root_asks_the_embedded_database_of_the_service(unit: Unit, machine: Machine) -> None:
    unit.install(address=False)
    unit.start()
    job = machine.ctl("--config", SETTINGS, "enqueue", "echo", '{"value": "one"}').stdout.strip()
    waited = machine.ctl("--config", SETTINGS, "jobs", "wait", job, "--timeout", "30")
    assert (waited.returncode, "one" in waited.stdout) == (0, True), waited.stderr
    assert not list((machine.root / "var/lib").glob("workerd-embedded*"))


def test_commands_about_jobs_read_the_credentials_of_the_running_service(
    unit: Unit, machine: Machine, dsn: str
) -> None:
    unit.install(address=False)
    machine.write("/etc/credstore/invoice-worker.database_url", dsn)
    unit.start()
    with_credentials = ("env", f"CREDENTIALS_DIRECTORY=/run/credentials/{UNIT}.service", *CTL, "--config", SETTINGS)
    job = machine.run(*with_credentials, "enqueue", "echo", '{"value": "two"}').strip()
    assert "two" in machine.run(*with_credentials, "jobs", "wait", job)


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
