"""What the manifests make a cluster run does run: each command in the environment of its container, probes, KEDA's question."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest

from tests import manifests
from tests.manager_process import free_port
from tests.support import LIMIT, until
from workerd.queue import inspect, migrate, roles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]

QUERY: str = manifests.find("ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


class Pod:
    """The process of a container, in its environment with directories below `place` and a port that is free."""

    def __init__(self, name: str, dsn: str, place: Path) -> None:
        self.name = name
        self.port = free_port()
        self.state = place / "state"
        (place / "secrets").mkdir()
        (place / "secrets" / "database_url").write_text(dsn + "\n")
        self.state.mkdir()
        self._command: list[str] = manifests.container(name).get("command", ["workerd"])
        programs = Path(sys.executable).parent  # their names in the image
        adapted = {
            "STATE_DIR": str(self.state),
            "RUNTIME_DIR": str(place / "run"),
            "CREDENTIALS_DIRECTORY": str(place / "secrets"),
            "METRICS_PORT": str(self.port),
            "MANAGER_PORT": str(self.port),
        }
        seen = manifests.environment(name)
        own = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(place),
        }
        self._environment = own | seen | {key: value for key, value in adapted.items() if key in seen}
        self._place = place

    def run(self) -> subprocess.CompletedProcess[str]:
        """To its end."""
        return subprocess.run(
            self._command,
            cwd=self._place,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[subprocess.Popen[bytes]]:
        """Ready by its own probe; killed in the end if it still runs."""
        log = self._place / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                self._command, cwd=self._place, env=self._environment, stdout=out, stderr=out, start_new_session=True
            )

        async def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return await self.probe("readinessProbe") == 200

        try:
            await until(ready, f"{self.name} is ready")
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    async def probe(self, name: str) -> int | None:
        """The answer to one of the container's probes."""
        path = manifests.container(self.name)[name]["httpGet"]["path"]
        try:
            async with httpx.AsyncClient(timeout=LIMIT) as client:
                return (await client.get(f"http://127.0.0.1:{self.port}{path}")).status_code
        except httpx.HTTPError:
            return None


@pytest.fixture
async def prefix(db: DB) -> AsyncIterator[str]:
    """Of the four roles."""
    made = f"test_kubernetes_{os.getpid()}"
    await roles.create(db, made)
    yield made
    everyone = ", ".join(roles.names(made).values())
    await db.execute(f"DROP OWNED BY {everyone} CASCADE; DROP ROLE {everyone}")


@pytest.fixture
async def login(db: DB, dsn: str, prefix: str) -> AsyncIterator[str]:
    """The address that workers and manager share: it works and operates, and owns nothing."""
    name = f"{prefix}_login"
    await db.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret' IN ROLE {prefix}_work, {prefix}_operate")
    parts = urlsplit(dsn)
    yield urlunsplit(parts._replace(netloc=f"{name}:secret@{parts.netloc.rpartition('@')[2]}"))
    await db.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_the_worker_answers_its_probes_and_ends_with_0_when_it_is_told_to(
    login: str, db: DB, tmp_path: Path
) -> None:
    pod = Pod("worker", login, tmp_path)
    async with pod.running() as process:
        assert [await pod.probe(name) for name in PROBES] == [200, 200, 200]
        workers = int(manifests.settings()["WORKERS"])
        assert await db.fetchval("SELECT sum(workers) FROM workerd.node WHERE dead_at IS NULL") == workers
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, LIMIT) == 0


async def test_the_manager_makes_a_first_token_and_answers_its_probes(login: str, db: DB, tmp_path: Path) -> None:
    pod = Pod("manager", login, tmp_path)
    async with pod.running():
        assert [await pod.probe(name) for name in PROBES] == [200, 200, 200]
        kept = pod.state / "manager-token"
        assert kept.stat().st_mode & 0o777 == 0o600
        async with httpx.AsyncClient(
            timeout=LIMIT, headers={"Authorization": f"Bearer {kept.read_text().strip()}"}
        ) as client:
            assert (await client.get(f"http://127.0.0.1:{pod.port}/api/v1/queues")).status_code == 200
    kept.unlink()
    async with pod.running():  # another pod: there is a token
        assert not kept.exists()
        assert await db.fetchval("SELECT count(*) FROM workerd.token") == 1


async def test_the_migration_makes_the_schema_and_does_nothing_the_second_time(empty_dsn: str, tmp_path: Path) -> None:
    pod = Pod("migration", empty_dsn, tmp_path)
    for _ in range(2):
        done = await asyncio.to_thread(pod.run)
        assert done.returncode == 0, done.stderr
        connection = await asyncpg.connect(empty_dsn)
        assert await migrate.current(connection) == migrate.latest()
        await connection.close()


async def test_keda_counts_what_could_run_now_or_does(db: DB, queue: Queue) -> None:
    assert await db.fetchval(QUERY) == 0  # also where there is no queue yet
    for name, jobs in (("mail", 3), ("ocr", 4), ("held", 5)):
        await queue.enqueue_many("echo", [{"value": n} for n in range(jobs)], queue=name)
    await queue.enqueue("echo", {"value": 0}, queue="ocr", priority=5)
    await queue.enqueue("echo", {"value": 0}, queue="mail", delay="1h")
    await _claim(db, "held", 2)
    await _claim(db, "ocr", 1)
    assert await db.fetchval(QUERY) == 3 + 5 + 5
    await inspect.pause(db, "held", paused=True)
    assert await db.fetchval(QUERY) == 3 + 5 + 2, "of a paused queue those that run"
    assert await db.fetchval(f"{QUERY} WHERE q.name IN ('ocr', 'mail')") == 5 + 3, "as documented"
    statement = await db.prepare(QUERY)
    assert statement.get_parameters() == ()
    assert [each.type.name for each in statement.get_attributes()] == ["int8"]


async def test_who_may_read_may_ask_what_keda_asks(db: DB, prefix: str) -> None:
    await db.execute(f"SET ROLE {prefix}_read")
    assert await db.fetchval(QUERY) == 0
    await db.execute("RESET ROLE")


async def test_what_keda_asks_costs_no_more_than_it_counts(db: DB) -> None:
    """However many jobs wait: each lane is read by its index, up to a limit."""
    await db.execute("INSERT INTO workerd.queue (name) VALUES ('deep'), ('shallow')")
    await db.execute("INSERT INTO workerd.lane (queue, priority) VALUES ('deep', 0), ('shallow', 0)")
    await db.execute(
        """INSERT INTO workerd.ready (lane, id, task, payload)
        SELECT l.id, n + 1000000 * l.id, 'echo', '{}'
        FROM workerd.lane l, generate_series(1, CASE queue WHEN 'deep' THEN 50000 ELSE 7 END) n"""
    )
    await db.execute("ANALYZE workerd.ready")
    assert await db.fetchval(QUERY) == 10_000 + 7
    (plan,) = json.loads(await db.fetchval(f"EXPLAIN (ANALYZE, FORMAT json) {QUERY}"))
    read = [step for step in _steps(plan["Plan"]) if step.get("Relation Name") == "ready"]
    assert read
    assert {step["Node Type"] for step in read} <= {"Index Scan", "Index Only Scan"}
    assert sum(step["Actual Rows"] * step["Actual Loops"] for step in read) <= 10_000 + 7


def _steps(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(step for part in plan.get("Plans", []) for step in _steps(part))]


async def _claim(db: DB, queue: str, jobs: int) -> None:
    """Let a node have the first ones of a queue."""
    await db.execute(
        """INSERT INTO workerd.lease (node, n, lane, tickets, last)
        SELECT 7, min(pos), lane, range_agg(int8range(pos, pos + 1)), max(pos)
        FROM (SELECT r.lane, r.pos FROM workerd.ready r JOIN workerd.lane l ON l.id = r.lane WHERE l.queue = $1
            ORDER BY r.pos LIMIT $2) AS first GROUP BY lane""",
        queue,
        jobs,
    )
