"""workerctl on containers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests import ledger
from tests.support import ROOT, Ctl, until
from tests.system.docker.load import under_load
from tests.system.docker.stack import OVERLAY, Stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import asyncpg

    from tests.faults.balance import Books
    from tests.system.docker.engine import Engine
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def stack(engine: Engine, variables: dict[str, str]) -> Iterator[Stack]:
    """With the label of compose.yaml, which no other stack has."""
    made = Stack(engine, f"workerd-test-{uuid4().hex[:8]}", variables, overlay=OVERLAY)
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def ctl(engine: Engine, stack: Stack, tmp_path: Path) -> Ctl:
    """From outside of the containers, with directories of its own."""
    environment = {
        **engine.environment,
        "STATE_DIR": str(tmp_path),
        "RUNTIME_DIR": str(tmp_path),
        "DATABASE_URL": stack.dsn,
        "PYTHONPATH": os.pathsep.join(str(ROOT / each) for each in ("daemon", "ops")),
        "COLUMNS": "80",
    }
    return Ctl(environment, tmp_path)


def said(ctl: Ctl, *words: str) -> str:
    done = ctl("--runtime", "docker", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_found_by_the_label_of_its_containers(ctl: Ctl, stack: Stack) -> None:
    told = ctl.json("status")
    assert (told["runtime"], told["state"]) == ("docker", "running")
    assert told["container"] == stack.workers()[0]["Name"].lstrip("/")
    shown = said(ctl, "status")
    assert shown.startswith(f"worker (docker) in {told['container']}")
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert ctl("status", "--name", "another").returncode == 3
    assert said(ctl, "health", "--ready") == "worker is ready\n"


async def test_scale_makes_and_removes_containers_and_no_job_is_lost(
    ctl: Ctl, stack: Stack, db: DB, queue: Queue, books: Books
) -> None:
    async def up_and_down() -> None:
        assert "3 containers (were 1)" in await asyncio.to_thread(said, ctl, "scale", "3")
        told = json.loads(await asyncio.to_thread(said, ctl, "status", "--json"))
        assert (told["workers"], len(told["daemons"])) == (12, 3)
        assert len({each["node"] for each in told["daemons"]}) == 3
        labels = [container["Config"]["Labels"] for container in stack.workers()]
        assert {each["com.docker.compose.container-number"] for each in labels} == {"1", "2", "3"}
        assert "1 container (were 3)" in await asyncio.to_thread(said, ctl, "scale", "1")

    jobs = await under_load(queue, up_and_down())
    await books.settled()
    ended = await db.fetchrow(
        "SELECT count(*), sum(crashes), count(DISTINCT node) FROM workerd.history WHERE state = 'succeeded'"
    )
    assert ended is not None
    assert tuple(ended)[:2] == (jobs, 0)
    assert ended[2] > 1
    assert await ledger.violations(db) == []


async def test_logs_are_followed_across_containers_and_restarts(ctl: Ctl, stack: Stack, queue: Queue) -> None:
    words = [sys.executable, "-m", "workerctl", "logs", "--follow", "--lines", "1", "--runtime", "docker"]
    follower = await asyncio.create_subprocess_exec(
        *words, env={**os.environ, **ctl.environment}, cwd=ctl.directory, stdout=subprocess.PIPE
    )
    assert follower.stdout is not None
    try:
        await asyncio.wait_for(follower.stdout.readline(), 30)  # it is connected
        await asyncio.to_thread(stack.compose, "restart", "worker")
        await queue.enqueue("telling", {"lines": 2})
        seen = ""
        while "line 1" not in seen:
            seen += (await asyncio.wait_for(follower.stdout.readline(), 30)).decode()
        assert "draining" in seen
        assert '"message":"database: ' in seen
    finally:
        follower.kill()
        await follower.wait()


def test_errors_are_picked_from_the_log(ctl: Ctl) -> None:
    assert '"level":"INFO"' in said(ctl, "logs", "--lines", "200")
    assert '"level":"INFO"' not in said(ctl, "logs", "--lines", "200", "--errors")


async def test_reload_hands_over_within_the_container(ctl: Ctl, stack: Stack) -> None:
    before = (await asyncio.to_thread(ctl.json, "status"))["pid"]
    started = stack.workers()[0]["State"]["StartedAt"]
    assert "in 1 container" in await asyncio.to_thread(said, ctl, "reload")
    assert (await asyncio.to_thread(ctl.json, "status"))["pid"] != before
    assert stack.workers()[0]["State"]["StartedAt"] == started


async def test_stop_drains_in_the_time_that_is_given_and_start_returns_when_it_is_ready(
    ctl: Ctl, stack: Stack, db: DB, queue: Queue
) -> None:
    job = await queue.enqueue("nap", {"seconds": 4.0})  # longer than DRAIN_TIMEOUT
    await until(lambda: db.fetchval("SELECT state = 'running' FROM workerd.job WHERE id = $1", job), "it runs")
    await asyncio.to_thread(said, ctl, "stop", "--timeout", "20s")
    assert await db.fetchval("SELECT state FROM workerd.job WHERE id = $1", job) == "succeeded"
    assert ctl("status", "--runtime", "docker").returncode == 3
    assert stack.workers()[0]["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert "1 container" in await asyncio.to_thread(said, ctl, "start")
    assert await db.fetchval("SELECT count(*) FROM workerd.node WHERE dead_at IS NULL") == 1
    assert "runs already" in await asyncio.to_thread(said, ctl, "start")


def test_what_cannot_be_done_is_one_clear_line(ctl: Ctl, tmp_path: Path) -> None:
    nobody = ctl("scale", "2", "--runtime", "docker", "--name", "another")
    assert nobody.returncode == 3
    assert "docker compose up" in nobody.stderr
    silent = ctl("status", "--runtime", "docker", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert silent.returncode == 1
    assert len(silent.stderr.strip().splitlines()) == 1
    assert "does not answer" in silent.stderr
