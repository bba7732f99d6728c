"""Units for systemd, the user that they run as, and its folders."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from workerctl.install import env_file, packed
from workerctl.install.target import STOP_MARGIN, File, Target, closed_to_others, run
from workerd.errors import WorkerdError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workerd.config import Configuration
    from workerd.settings import Settings

USER = "invoice-worker"
FULL_NAME = "Invoice worker"  # of the user: by it we know our own
UNITS = Path("/etc/systemd/system")
SETTINGS = Path("/etc/invoice-worker")
SYSUSERS, TMPFILES = Path("/etc/sysusers.d/invoice-worker.conf"), Path("/etc/tmpfiles.d/invoice-worker.conf")
STAMP = Path("/var/lib/systemd/timers/stamp-invoice-worker-backup.timer")
CREDENTIALS = Path("/etc/credstore")
DATA = ("/var/lib/invoice-worker", "/var/log/invoice-worker")
PROGRAM = "/opt/worker/bin/python"  # in the files as they lie
HOMES = ("/home", "/root", "/run/user")  # hidden by ProtectHome=yes
RISING = 254  # the first version of systemd whose delay before a restart can rise


class Systemd(Target):
    name = "systemd"
    is_system = True
    next_step = "systemctl daemon-reload && systemctl start invoice-worker"

    def files(self) -> list[File]:
        units = [
            "invoice-worker.service",
            "invoice-worker@.service",
            "invoice-worker.target",
            "invoice-worker-manager.service",
            "invoice-worker-backup.service",
            "invoice-worker-backup.timer",
        ]
        return [
            File(
                SYSUSERS,
                packed.text("systemd/sysusers.d/invoice-worker.conf"),
                then=("systemd-sysusers", str(SYSUSERS)),
            ),
            File(
                TMPFILES,
                packed.text("systemd/tmpfiles.d/invoice-worker.conf"),
                then=("systemd-tmpfiles", "--create", str(TMPFILES)),
            ),
            File(
                SETTINGS / "worker.env", _environment(self.configuration), 0o640, USER, shown=env_file.without_secrets
            ),
            *(File(UNITS / unit, _adapted(packed.text(f"systemd/{unit}"), self.settings)) for unit in units),
        ]

    def warnings(self) -> list[str]:
        return [
            f"{USER} cannot read {path}: {folder} is closed to others. Move it, to /opt say, or `chmod o+x {folder}`"
            for path in (Path(sys.executable), self.settings.app_dir.absolute())
            if (folder := closed_to_others(path)) is not None
        ]

    def remove(self) -> list[str]:
        for unit in _known():
            subprocess.run(["systemctl", "--quiet", "disable", "--now", unit], check=False, capture_output=True)
        for file in (SYSUSERS, TMPFILES, STAMP, *UNITS.glob("invoice-worker*"), *CREDENTIALS.glob("invoice-worker.*")):
            shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink(missing_ok=True)
        shutil.rmtree(SETTINGS, ignore_errors=True)
        run("systemctl", "daemon-reload")
        subprocess.run(["systemctl", "reset-failed", "invoice-worker*"], check=False, capture_output=True)
        _remove_user()
        for empty in (Path("/run/invoice-worker"), CREDENTIALS):
            with contextlib.suppress(OSError):
                empty.rmdir()
        return [folder for folder in DATA if Path(folder).exists()]


def _adapted(unit: str, settings: Settings) -> str:
    """A unit as it lies in the project, for this interpreter and these settings."""
    python = sys.executable.replace("%", "%%")  # as it was called: a link may be what makes it the environment's
    text = unit.replace(PROGRAM, f'"{python}"' if " " in python else python)
    text = re.sub(r"(?m)^(#.*) DRAIN_TIMEOUT \(30 s\)", rf"\1 DRAIN_TIMEOUT ({settings.drain_timeout:g} s)", text)
    text = re.sub(r"(?m)^TimeoutStopSec=.*", f"TimeoutStopSec={settings.drain_timeout + STOP_MARGIN:g}s", text)
    if settings.stall_limit < 2 * 30:
        text = re.sub(r"(?m)^WatchdogSec=.*", f"WatchdogSec={settings.stall_limit / 2:g}s", text)
    needed = (Path(sys.executable), settings.app_dir.absolute())
    if any(path.is_relative_to(home) for path in needed for home in HOMES):
        text = text.replace("ProtectHome=yes", "ProtectHome=read-only")
    if _version() >= RISING:
        text = text.replace("RestartSec=2s", "RestartSec=2s\nRestartSteps=5\nRestartMaxDelaySec=60s")
    return text


def _environment(configuration: Configuration) -> str:
    """The file that lies there, which is the operator's, with the settings that are given now; else a new one."""
    there = _read(SETTINGS / "worker.env")
    given = env_file.entries(configuration)
    if there is None or configuration.sources["app_dir"] != "default":
        given["APP_DIR"] = str(configuration.settings.app_dir.absolute())
    if path := os.environ.get("PYTHONPATH"):
        given["PYTHONPATH"] = os.pathsep.join(str(Path(each).absolute()) for each in path.split(os.pathsep) if each)
    return env_file.filled(packed.text("systemd/worker.env") if there is None else there, given)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, PermissionError):  # who only prints need not be root
        return None


def _version() -> int:
    """Of systemd; 0 where it is not installed."""
    try:
        return int(run("systemctl", "--version").split()[1])
    except (WorkerdError, ValueError, IndexError):
        return 0


def _known() -> Iterator[str]:
    """The units that run or are enabled, with every instance."""
    for verb in ("list-units", "list-unit-files"):
        listed = subprocess.run(
            ["systemctl", verb, "--all", "--plain", "--no-legend", "invoice-worker*"],
            check=False,
            capture_output=True,
            text=True,
        ).stdout
        yield from (line.split()[0] for line in listed.splitlines())


def _remove_user() -> None:
    try:
        found = pwd.getpwnam(USER)
    except KeyError:
        return
    if found.pw_gecos == FULL_NAME:
        run("userdel", USER)
        subprocess.run(["groupdel", USER], check=False, capture_output=True)  # where userdel has left it
