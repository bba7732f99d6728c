"""What is installed: valid, closed, for several daemons, with secrets as credentials; and nothing of it is left."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT, until_state
from tests.system.systemd.unit import UNIT

if TYPE_CHECKING:
    import asyncpg

    from tests.system.systemd.machine import Machine
    from tests.system.systemd.unit import Unit
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.system

UNITS = ("invoice-worker.service", "invoice-worker@2.service", "invoice-worker-backup.service")


def test_the_files_as_they_lie_are_valid(machine: Machine) -> None:
    paths = sorted((ROOT / "systemd").glob("invoice-worker*"))
    for path in paths:
        machine.write(f"/srv/{path.name}", path.read_text())
    for path in paths:
        done = machine.try_run("systemd-analyze", "verify", f"/srv/{path.name}")
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_is_installed_is_valid_and_hardly_exposed(unit: Unit, machine: Machine) -> None:
    for each in (*UNITS, "invoice-worker.target", "invoice-worker-backup.timer"):
        done = machine.try_run("systemd-analyze", "verify", each)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
    for each in UNITS:
        exposure = machine.run("systemd-analyze", "security", "--no-pager", each)
        found = re.search(r"Overall exposure level for \S+: ([\d.]+)", exposure)
        assert found is not None
        assert float(found[1]) <= 1.5
    assert machine.try_run("systemctl", "is-enabled", UNIT).stdout.strip() == "disabled"


def test_installing_again_shows_what_differs_and_writes_nothing(unit: Unit, machine: Machine) -> None:
    place = machine.root / "etc/invoice-worker/worker.env"
    before = place.read_text()
    assert place.stat().st_mode & 0o777 == 0o640
    done = machine.ctl("install", "systemd", "--workers", "9", "--database-url", "postgresql://app:hunter22@db/shop")
    assert done.returncode == 1
    assert "+WORKERS=9" in done.stdout
    assert "--replace" in done.stderr
    assert "hunter22" not in done.stdout
    assert place.read_text() == before


def test_uninstalling_leaves_nothing_but_data(unit: Unit, machine: Machine) -> None:
    unit.start()
    machine.run("systemctl", "start", "invoice-worker@2")
    machine.run("systemctl", "enable", "--now", "invoice-worker-backup.timer")
    assert machine.ctl("install", "logrotate").returncode == 0
    assert machine.ctl("uninstall", "logrotate").returncode == 0
    unit.remove()
    found = machine.run("find", "/etc", "/run", "/var", "-name", "*invoice-worker*").split()
    assert sorted(found) == ["/var/lib/invoice-worker", "/var/log/invoice-worker"]
    assert machine.try_run("getent", "passwd", "invoice-worker").returncode != 0
    assert machine.run("systemctl", "list-units", "--all", "--no-legend", "invoice-worker*") == ""
    unit.remove()  # once more does no harm


def test_only_root_installs(machine: Machine) -> None:
    as_nobody = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups")
    done = machine.try_run(*as_nobody, "/opt/worker/bin/python", "-m", "workerctl", "install", "systemd")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "sudo workerctl install systemd" in done.stderr


async def test_instances_work_side_by_side_and_the_target_stops_them(
    unit: Unit, machine: Machine, queue: Queue, db: DB
) -> None:
    machine.write("/etc/invoice-worker/second.env", "QUEUES=second\n")
    for name in ("first", "second"):
        assert machine.ctl("start", "--name", name).returncode == 0
    assert "(systemd)" in machine.ctl("status", "--name", "second").stdout
    job = await queue.enqueue("echo", {"value": "two"}, queue="second")
    await until_state(db, job, "succeeded")
    machine.run("systemctl", "start", "invoice-worker.target")
    machine.run("systemctl", "stop", "invoice-worker.target")
    for name in ("first", "second"):
        machine.run("systemctl", "stop", f"invoice-worker@{name}")  # waits for the job that is there already
        journal = machine.journal(f"invoice-worker@{name}")
        assert journal.count("Stopping invoice-worker@") == 1
        assert "stopped: PID" in journal


def test_secrets_come_as_credentials(unit: Unit, machine: Machine, dsn: str) -> None:
    unit.install(address=False)
    machine.write("/etc/credstore/invoice-worker.database_url", dsn)
    unit.start()
    assert unit.status()["database"]["host"] == dsn.partition("@")[2]


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


def test_an_embedded_database_is_stopped_in_good_order(unit: Unit, machine: Machine) -> None:
    unit.install(address=False)
    unit.start()
    machine.run("systemctl", "stop", UNIT)
    assert "SIGKILL" not in machine.journal(UNIT).rpartition("Stopping")[2]
    log = machine.root / "var/lib/invoice-worker/postgres/postgres.log"
    assert "database system is shut down" in log.read_text()


async def test_the_timer_makes_backups(unit: Unit, machine: Machine, queue: Queue) -> None:
    await queue.enqueue("echo", {"value": "kept"})
    backups = machine.root / "var/lib/invoice-worker/backups"
    earlier = set(backups.glob("*"))
    timer = "invoice-worker-backup.timer"
    machine.write(
        f"/etc/systemd/system/{timer}.d/test.conf", "[Timer]\nOnActiveSec=1s\nRandomizedDelaySec=0\nAccuracySec=1ms\n"
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", timer)
    await unit.until_journal_has("Finished invoice-worker-backup.service", "invoice-worker-backup")
    made = [path for path in backups.glob("*") if path not in earlier]
    assert len(made) == 1
    assert made[0].stat().st_mode & 0o777 == 0o600
