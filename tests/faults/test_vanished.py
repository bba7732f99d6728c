"""A host vanishes, or is cut off from the database for a while: nobody closes its connections, and its jobs run elsewhere."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import threading
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.faults.balance import Books
from tests.faults.claims import claim
from tests.faults.cluster import TESTBED, Cluster
from tests.faults.fleet import ask, daemons, leader
from tests.faults.span import Span
from tests.support import until
from workerd import Queue
from workerd.queue import migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support import DaemonProcess
    from workerd.settings import Settings

HEARTBEAT = 1.0  # seconds
JOBS = 4
ENDED = 10.0  # seconds; the server itself would need 15 until it misses a client
RUNNING = "SELECT count(*) = $1 FROM workerd.job WHERE state = 'running' AND id = ANY ($2) AND node = $3"
SESSIONS = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE $1"
SETTLED = "SELECT bool_and(backend_start < clock_timestamp() - interval '5 s') FROM pg_stat_activity WHERE application_name LIKE $1"
CLONE_NEWNET = 0x40000000


class Host:
    """A network namespace with a link of its own to this machine."""

    def __init__(self, name: str, here: str) -> None:
        self._name = name
        self.here = here  # the address of this machine, as it is seen from there

    def link(self, verb: str, *options: str) -> None:
        """One of the faults of the testbed's netfault.sh, or their end."""
        subprocess.run([TESTBED / "netfault.sh", verb, self._name, *options], check=True, capture_output=True)

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


def _link(name: str) -> int:
    """The number of the link that netfault.sh gives to a namespace of this name."""
    told = subprocess.run(["cksum"], input=name, capture_output=True, text=True, check=True).stdout
    return int(told.split()[0]) % 250


@pytest.fixture
def host() -> Iterator[Host]:
    if os.geteuid() != 0 or not (TESTBED / "netfault.sh").exists():
        pytest.skip("network namespaces need root and the testbed")
    name = next(name for name in map("gone-{:x}".format, count(os.getpid())) if claim(f"link-{_link(name)}"))
    done = subprocess.run([TESTBED / "netfault.sh", "up", name], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("network namespaces are not allowed here")
    yield Host(name, done.stdout.split()[1])
    subprocess.run([TESTBED / "netfault.sh", "down", name], check=True)


@dataclass
class Pair:
    """A daemon on another host and one on this, on one database."""

    db: asyncpg.Connection[asyncpg.Record]
    queue: Queue
    books: Books
    port: str  # of the database
    far: DaemonProcess
    near: DaemonProcess

    async def far_runs(self, host: Host, sign: Path, *, leads: bool) -> list[int]:
        """Start both, the one first that is to lead, and jobs that wait for a sign; returns these when the far one runs all of them."""
        fillers: list[int] = []
        if not leads:
            await asyncio.to_thread(self.near.start)
            fillers = await self.queue.enqueue_many("nap", [{"seconds": 3600}] * JOBS)
            await self.run_on(self.near, fillers)
        await asyncio.to_thread(host.start, self.far)
        jobs = await self.queue.enqueue_many("held", [{"sign": str(sign)}] * JOBS)
        await self.run_on(self.far, jobs)
        if leads:
            await asyncio.to_thread(self.near.start)
        for filler in fillers:
            await self.queue.cancel(filler)
        assert await leader(self.db, [self.far, self.near]) is (self.far if leads else self.near)
        return jobs

    async def run_on(self, daemon: DaemonProcess, jobs: list[int]) -> None:
        node = daemon.settings.node
        await until(lambda: self.db.fetchval(RUNNING, len(jobs), jobs, node), f"{node} runs them")

    async def in_a_settled_fleet(self) -> None:
        """Who has been connected for a moment only does not judge by silence."""
        await until(
            lambda: self.db.fetchval(SETTLED, f"worker {self.near.settings.node} maintenance"), "they know each other"
        )


@pytest.fixture
async def pair(settings: Settings, host: Host) -> AsyncIterator[Pair]:
    with Cluster("-c", "listen_addresses=*") as cluster:
        db = await asyncpg.connect(cluster.url[""])
        rules = Path(await db.fetchval("SHOW hba_file"))
        rules.write_text(f"{rules.read_text()}host all all 10.211.0.0/16 trust\n")
        await db.execute("SELECT pg_reload_conf()")
        await migrate.upgrade(db)
        here = cluster.url[""]
        changes = {"heartbeat_interval": HEARTBEAT, "tasks": ("tests.handlers", "tests.faults.handlers")}
        (far,) = daemons(settings, "far", database_url=here.replace("127.0.0.1", host.here), **changes)
        (near,) = daemons(settings, "near", database_url=here, **changes)
        with far, near:
            async with Queue.connect(here) as queue:
                yield Pair(db, queue, await Books.open(db), cluster.address.rpartition(":")[2], far, near)
        await db.close()


@pytest.mark.parametrize("leads", [True, False], ids=["the leader", "another"])
async def test_jobs_of_a_vanished_host_start_elsewhere_and_its_sessions_are_ended(
    host: Host, pair: Pair, tmp_path: Path, leads: bool
) -> None:
    jobs = await pair.far_runs(host, tmp_path / "sign", leads=leads)
    await pair.in_a_settled_fleet()
    host.link("cut")
    async with Span(pair.db, pair.near) as span:
        await pair.run_on(pair.near, jobs)
    print(f"{span.took:.2f} s, of which nobody worked for {span.rest:.2f}")
    assert span.rest < 3 * HEARTBEAT + 2
    await until(
        lambda: pair.db.fetchval(SESSIONS, f"worker {pair.far.settings.node}%"), "its sessions are ended", ENDED
    )
    await asyncio.to_thread(pair.far.kill)
    (tmp_path / "sign-2").touch()
    assert await pair.books.close(pair.near) == []


async def test_what_a_host_ends_while_it_is_cut_off_changes_nothing_when_it_is_back(
    host: Host, pair: Pair, tmp_path: Path
) -> None:
    """A partition: its jobs were started elsewhere, and end on both sides of it."""
    jobs = await pair.far_runs(host, tmp_path / "sign", leads=True)
    await pair.in_a_settled_fleet()
    host.link("drop", pair.port)
    await pair.run_on(pair.near, jobs)
    (tmp_path / "sign-1").touch()

    async def over() -> bool:
        return bool((await ask(pair.far))["busy"] == 0)

    await until(over, "the far one has ended them as well")
    host.link("heal")
    anew = "SELECT count(*) = 1 FROM workerd.node WHERE name = $1 AND dead_at IS NULL"
    await until(lambda: pair.db.fetchval(anew, pair.far.settings.node), "it is back, as another node")
    (tmp_path / "sign-2").touch()
    await pair.books.settled()
    assert (await ask(pair.far))["jobs_lost"] == JOBS
    assert await pair.books.close(pair.far, pair.near) == []
    rows = await pair.db.fetch("SELECT state, attempt, node FROM workerd.job WHERE id = ANY ($1)", jobs)
    assert [tuple(row) for row in rows] == [("succeeded", 2, pair.near.settings.node)] * JOBS
