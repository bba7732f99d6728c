"""Several daemons on one database, and which of them leads."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.support import DaemonProcess, until

if TYPE_CHECKING:
    import asyncpg

    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

KILLS = int(os.environ.get("WORKERD_TEST_KILLS", "6"))  # where leaders are killed again and again: more find more

_LEADER = """
    SELECT substring(a.application_name FROM 'worker (.*) maintenance') FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.objid = 0 AND l.classid = 'workerd.node'::regclass::oid
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def daemons(settings: Settings, *names: str, **changes: Any) -> list[DaemonProcess]:
    """Daemons of these names, with places of their own."""
    found = []
    for name in names:
        places = {"runtime_dir": settings.runtime_dir / name, "log_dir": settings.log_dir / name}
        found.append(DaemonProcess(settings.model_copy(update={"name": name, **places, **changes})))
    return found


async def start(*fleet: DaemonProcess) -> None:
    """Start them, all at once; they are ready."""
    await asyncio.gather(*[asyncio.to_thread(daemon.start) for daemon in fleet])


async def start_again(daemon: DaemonProcess) -> None:
    """As a supervisor does: once more when a session that was cut has ended it at its start."""
    for _ in range(5):
        with suppress(AssertionError):
            await asyncio.to_thread(daemon.start)
            return
        await asyncio.to_thread(daemon.wait)
    raise AssertionError("the daemon does not start")


async def ask(daemon: DaemonProcess, verb: str = "status") -> dict[str, Any]:
    """The answer of a daemon to a verb of its control socket."""
    reader, writer = await asyncio.open_unix_connection(daemon.settings.socket_path)
    writer.write(json.dumps({"verb": verb}).encode() + b"\n")
    answer: dict[str, Any] = json.loads(await reader.readline())["data"]
    writer.close()
    return answer


def run_to_its_end(settings: Settings) -> subprocess.CompletedProcess[str]:
    """A daemon that is not expected to start, and what it says."""
    return subprocess.run(
        [sys.executable, "-m", "workerd", *DaemonProcess(settings).flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def leader(db: DB, fleet: list[DaemonProcess]) -> DaemonProcess:
    """The one that leads; waits until there is one."""
    name = await until(lambda: db.fetchval(_LEADER), "a node leads")
    return next(daemon for daemon in fleet if daemon.settings.node == name)


async def only_living(db: DB, fleet: list[DaemonProcess]) -> None:
    """Returns when no others count as living: those that were killed have been declared dead."""
    living = "SELECT count(*) FROM workerd.node WHERE dead_at IS NULL"
    await until(lambda: _is(db, living, len(fleet)), f"{len(fleet)} nodes live")


async def _is(db: DB, query: str, value: int) -> bool:
    count: int = await db.fetchval(query)
    return count == value
