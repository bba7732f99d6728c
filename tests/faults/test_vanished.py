"""A host vanishes: its link goes down, and nobody closes its connections."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from tests.faults.balance import Books
from tests.faults.cluster import TESTBED, Cluster
from tests.support import DaemonProcess, until
from workerd import Queue
from workerd.queue import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workerd.settings import Settings

HEARTBEAT = 2.0  # seconds; a leader that has vanished is deposed after 5 s, whatever this is
CLONE_NEWNET = 0x40000000


class Host:
    """A network namespace with a link of its own to this machine."""

    def __init__(self, name: str, here: str) -> None:
        self._name = name
        self.here = here  # the address of this machine, as it is seen from there

    def link(self, verb: str) -> None:
        subprocess.run([TESTBED / "netfault.sh", verb, self._name], check=True, capture_output=True)

    def start(self, daemon: DaemonProcess) -> None:
        """Start the daemon over there: the namespace is that of the thread which starts it."""

        def enter() -> None:
            there = os.open(f"/run/netns/tb-{self._name}", os.O_RDONLY)
            assert ctypes.CDLL(None, use_errno=True).setns(there, CLONE_NEWNET) == 0
            os.close(there)
            daemon.start()

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()


@pytest.fixture
def host() -> Iterator[Host]:
    if os.geteuid() != 0 or not (TESTBED / "netfault.sh").exists():
        pytest.skip("network namespaces need root and the testbed")
    name = f"gone-{uuid4().hex[:6]}"
    done = subprocess.run([TESTBED / "netfault.sh", "up", name], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("network namespaces are not allowed here")
    yield Host(name, done.stdout.split()[1])
    subprocess.run([TESTBED / "netfault.sh", "down", name], check=True)


async def test_jobs_of_a_vanished_host_start_elsewhere_and_its_sessions_are_ended(
    settings: Settings, host: Host
) -> None:
    with Cluster("-c", "listen_addresses=*") as cluster:
        db = await asyncpg.connect(cluster.url[""])
        rules = Path(await db.fetchval("SHOW hba_file"))
        rules.write_text(f"{rules.read_text()}host all all 10.211.0.0/16 trust\n")
        await db.execute("SELECT pg_reload_conf()")
        await migrate.upgrade(db)
        books = await Books.open(db)
        places = {
            name: {"runtime_dir": settings.runtime_dir / name, "log_dir": settings.log_dir / name}
            for name in ("far", "near")
        }
        far, near = (
            settings.model_copy(update={"name": name, "database_url": dsn, "heartbeat_interval": HEARTBEAT, **places[name]})
            for name, dsn in (("far", cluster.url[""].replace("127.0.0.1", host.here)), ("near", cluster.url[""]))
        )  # fmt: skip
        running = "SELECT count(*) FROM workerd.job WHERE state = 'running' AND node LIKE $1"
        with DaemonProcess(far) as vanishing, DaemonProcess(near) as other:
            await asyncio.to_thread(host.start, vanishing)
            async with Queue.connect(cluster.url[""]) as queue:
                await queue.enqueue_many("nap", [{"seconds": 12}] * 4)
            await until(lambda: db.fetchval(running, "%-far"), "the far node runs them")
            await asyncio.to_thread(other.start)
            await asyncio.sleep(6)  # as in a fleet, the others have been connected for a while
            host.link("cut")
            began = time.monotonic()
            await until(lambda: db.fetchval(running, "%-near"), "the near node runs them")
            assert time.monotonic() - began < 3 * HEARTBEAT + 2
            sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE $1"
            await until(lambda: _none(db, sessions, f"worker {far.node}%"), "its sessions are ended", 5)
            await asyncio.to_thread(vanishing.kill)
            assert await books.close(other) == []
        await db.close()


async def _none(db: asyncpg.Connection[asyncpg.Record], query: str, *args: object) -> bool:
    return not await db.fetchval(query, *args)
