"""`invoice-worker` as installed on a machine, on the database of one test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.support import until

if TYPE_CHECKING:
    from tests.system.systemd.machine import Machine

UNIT = "invoice-worker"


class Unit:
    """Installed and known to systemd, not started."""

    def __init__(self, machine: Machine, dsn: str) -> None:
        self.machine = machine
        self._dsn = dsn
        self.install()

    def install(self, *flags: str, address: bool = True) -> None:
        """With these settings and no others; `address`: with that of the test's database."""
        given = ("--app-dir", "/opt/app", "--tasks", "tests.system.systemd.tasks", "--heartbeat-interval", "0.5")
        database = ("--database-url", self._dsn) if address else ()
        (self.machine.root / "etc/invoice-worker/worker.env").unlink(missing_ok=True)
        done = self.machine.ctl("install", "systemd", "--replace", *given, *database, *flags)
        assert done.returncode == 0, done.stderr
        self.machine.run("systemctl", "daemon-reload")

    def override(self, *lines: str) -> None:
        """Lines of [Service] that `systemctl edit` would add."""
        self.machine.write(f"/etc/systemd/system/{UNIT}.service.d/test.conf", "\n".join(("[Service]", *lines, "")))
        self.machine.run("systemctl", "daemon-reload")

    def start(self) -> None:
        """Returns when it is active."""
        self.machine.run("systemctl", "start", UNIT)

    def reload(self) -> None:
        done = self.machine.try_run("systemctl", "reload", UNIT)
        assert done.returncode == 0, self.machine.journal(UNIT)

    @property
    def pid(self) -> int:
        return int(self.machine.show(UNIT, "MainPID"))

    @property
    def restarts(self) -> int:
        return int(self.machine.show(UNIT, "NRestarts"))

    async def until(self, what: str, value: str, limit: float = 60.0) -> None:
        """Wait until a property of the unit has a value."""

        async def look() -> bool:
            return self.machine.show(UNIT, what) == value

        await until(look, f"{what} of the unit becomes {value}", limit)

    async def until_journal_has(self, text: str, unit: str = UNIT, limit: float = 60.0) -> None:
        async def look() -> Any:
            return text in self.machine.journal(unit)

        await until(look, f"the journal of {unit} has {text!r}", limit)

    def status(self) -> dict[str, Any]:
        done = self.machine.ctl("status", "--json")
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def remove(self) -> None:
        done = self.machine.ctl("uninstall", "systemd")
        assert done.returncode == 0, done.stderr
