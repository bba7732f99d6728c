"""What is installed: valid, closed, for several daemons, with secrets as credentials; and nothing of it is left."""

from __future__ import annotations

import re
import shutil
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

FOLDERS = {
    "/etc/invoice-worker": "root:invoice-worker 750",
    "/etc/invoice-worker/worker.env": "root:invoice-worker 640",
    "/etc/credstore": "root:root 700",
    "/var/lib/invoice-worker": "invoice-worker:invoice-worker 750",
    "/var/log/invoice-worker": "invoice-worker:invoice-worker 750",
    "/run/invoice-worker/worker": "invoice-worker:invoice-worker 750",
    "/run/invoice-worker/worker/worker.sock": "invoice-worker:invoice-worker 660",
}
UNITS = (
    "invoice-worker.service",
    "invoice-worker@2.service",
    "invoice-worker-manager.service",
    "invoice-worker-backup.service",
)


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


def test_installing_again_keeps_the_settings_that_lie_there(unit: Unit, machine: Machine) -> None:
    place = machine.root / "etc/invoice-worker/worker.env"
    with place.open("a") as file:
        file.write("QUEUES=mail\n")
    before = place.read_text()
    assert machine.ctl("install", "systemd").returncode == 0
    assert place.read_text() == before
    assert machine.ctl("install", "systemd", "--workers", "9", "--replace").returncode == 0
    assert place.read_text() == before.replace("#WORKERS=2", "WORKERS=9")


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


def test_the_user_and_the_folders_are_made_and_closed(unit: Unit, machine: Machine) -> None:
    unit.start()
    seen = machine.run("stat", "--format", "%n %U:%G %a", *FOLDERS).splitlines()
    assert seen == [f"{path} {rights}" for path, rights in FOLDERS.items()]


def test_an_environment_elsewhere_is_run_by_the_name_it_was_called_by(unit: Unit, machine: Machine) -> None:
    machine.run("python3", "-m", "venv", "--without-pip", "/opt/other")
    packages = machine.run("/opt/other/bin/python", "-c", "import site; print(site.getsitepackages()[0])").strip()
    machine.write(f"{packages}/worker.pth", packages.replace("/opt/other", "/opt/worker"))
    machine.write("/opt/more/elsewhere.py", "from tests.system.systemd.tasks import echo\n")
    given = ("--replace", "--app-dir", "/opt/app", "--tasks", "elsewhere")
    machine.run("env", "PYTHONPATH=/opt/more", "/opt/other/bin/python", "-m", "workerctl", "install", "systemd", *given)
    machine.run("systemctl", "daemon-reload")
    unit.start()
    words = (machine.run("cat", f"/proc/{unit.pid}/cmdline")).split("\0")
    assert words[:3] == ["/opt/other/bin/python", "-m", "workerd"]
    assert machine.run("readlink", f"/proc/{unit.pid}/exe").startswith("/usr/bin/python3")


def test_print_shows_the_files_and_writes_none(machine: Machine) -> None:
    done = machine.ctl("install", "systemd", "--print", "--database-url", "postgresql://app:hunter22@db/shop")
    assert done.returncode == 0
    for path in ("/etc/systemd/system/invoice-worker.service", "/etc/invoice-worker/worker.env", "/etc/sysusers.d"):
        assert f"# {path}" in done.stdout
    assert "ExecStart=/opt/worker/bin/python -m workerd\n" in done.stdout
    assert "hunter22" not in done.stdout
    assert machine.run("find", "/etc", "-name", "*invoice-worker*") == ""


def test_logrotate_takes_the_files_away_and_the_daemon_opens_new_ones(unit: Unit, machine: Machine) -> None:
    if shutil.which("logrotate") is None:
        pytest.skip("there is no logrotate here: apt install logrotate")
    unit.install("--log-max-size", "0")
    unit.start()
    machine.run("systemctl", "start", "invoice-worker@2")
    assert machine.ctl("install", "logrotate").returncode == 0
    folder = machine.root / "var/log/invoice-worker"
    machine.run("logrotate", "--force", "--state", "/run/logrotate.state", "/etc/logrotate.d/invoice-worker")
    for name in ("worker", "2"):
        assert '"message":"ready"' in (folder / f"{name}.log.1").read_text()
        assert machine.ctl("reload", "--name", name).returncode == 0  # says something
        assert "handed over to PID" in (folder / f"{name}.log").read_text()
    assert machine.ctl("uninstall", "logrotate").returncode == 0


def test_the_target_starts_the_instances_that_are_enabled(unit: Unit, machine: Machine) -> None:
    instances = ("invoice-worker@1", "invoice-worker@2")
    machine.run("systemctl", "enable", *instances)
    machine.run("systemctl", "start", "invoice-worker.target")
    for each in instances:
        assert machine.show(each, "ActiveState") == "active"
    machine.run("systemctl", "stop", "invoice-worker.target")


def test_secrets_come_as_credentials(unit: Unit, machine: Machine, dsn: str) -> None:
    unit.install(address=False)
    machine.write("/etc/credstore/invoice-worker.database_url", dsn)
    unit.start()
    assert unit.status()["database"]["host"] == dsn.partition("@")[2]


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
