"""Reports of errors, as a Sentry receives them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.manager_process import free_port
from tests.sentry import KEY, Sentry
from tests.support import LIMIT, ROOT, until_state
from workerd import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

    from tests.support import Ctl
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    with Sentry() as running:
        yield running


@pytest.fixture
def reported(ctl: Ctl, sentry: Sentry) -> Ctl:
    """`workerctl` where the settings file says that errors are to be reported."""
    (ctl.directory / ".env").write_text(f"SENTRY_DSN={sentry.dsn}\nSENTRY_ENVIRONMENT=staging\nAPI_TOKEN=api-token-7\n")
    ctl.environment["TASKS"] = "tests.reported_handlers"
    return ctl


async def test_a_job_that_has_failed_is_reported_without_what_it_carries(
    reported: Ctl, sentry: Sentry, queue: Queue, db: DB
) -> None:
    start(reported)
    job = await queue.enqueue("charge", {"customer": "alice@example.com"}, queue="money")
    row = await until_state(db, job, "failed")
    event = await sentry.event(job=str(job))
    tags = {name: event["tags"][name] for name in ("task", "queue", "attempt")}
    assert tags == {"task": "charge", "queue": "money", "attempt": "1"}
    assert (event["release"], event["environment"]) == (f"workerd@{__version__}", "staging")
    [raised] = event["exception"]["values"]
    assert (raised["type"], raised["value"]) == ("ValueError", "the bank refuses, password ********")
    frames = raised["stacktrace"]["frames"]
    assert (frames[-1]["function"], frames[-1]["filename"]) == ("charge", "reported_handlers.py")
    assert frames[-1]["context_line"].startswith("raise ValueError")
    kept = await db.fetchval("SELECT fingerprint FROM workerd.history WHERE id = $1", row["id"])
    assert event["fingerprint"] == ["charge", kept]
    assert b"alice" not in sentry.received
    assert os.fsencode(KEY) not in b"".join(line for line in sentry.received.splitlines() if b'"dsn"' not in line)


async def test_neither_retries_nor_sensitive_tasks_are_reported(
    reported: Ctl, sentry: Sentry, queue: Queue, db: DB
) -> None:
    start(reported)
    secret = await queue.enqueue("secretly", {"card": "4111"})
    again = await queue.enqueue("at_second_try")
    await until_state(db, secret, "failed")
    await until_state(db, again, "succeeded")
    last = await queue.enqueue("charge", {"customer": "bob"})
    await sentry.event(job=str(last))
    assert [event["tags"].get("task") for event in sentry.events] == ["charge"]
    assert b"4111" not in sentry.received


async def test_a_loop_that_stands_still_and_the_end_of_its_process_are_reported(
    reported: Ctl, sentry: Sentry, queue: Queue
) -> None:
    reported.environment["STALL_LIMIT"] = "2"
    start(reported)
    await queue.enqueue("blocking")
    warned = await sentry.event(level="warning", logger="workerd.daemon.loop_watch")
    assert "in blocking" in warned["logentry"]["formatted"]
    ended = await sentry.event(level="fatal", logger="workerd.daemon.loop_watch")
    assert ended["logentry"]["formatted"].startswith("the loop stands still")


async def test_a_dead_endpoint_disturbs_neither_jobs_nor_the_end_nor_the_log(ctl: Ctl, queue: Queue, db: DB) -> None:
    ctl.environment |= {
        "TASKS": "tests.reported_handlers",
        "SENTRY_DSN": f"http://{KEY}@127.0.0.1:{free_port()}/42",
    }
    start(ctl)
    for _ in range(20):
        await until_state(db, await queue.enqueue("charge", {"customer": "alice"}), "failed")
    began = time.monotonic()
    stopped = ctl("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert time.monotonic() - began < LIMIT
    log = ctl("logs", "--lines", "500").stdout
    assert log.count("does not take reports") == 1, log
    assert "envelope" not in log


async def test_without_the_extra_one_line_says_what_to_install(ctl: Ctl, queue: Queue) -> None:
    (ctl.directory / "sitecustomize.py").write_text("import sys\nsys.modules['sentry_sdk'] = None\n")
    path = f"{ctl.directory}:{os.environ.get('PYTHONPATH', '')}:{ROOT}"
    ctl.environment |= {"PYTHONPATH": path, "SENTRY_DSN": f"http://{KEY}@127.0.0.1:1/42"}
    start(ctl)
    assert await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=60) == 1
    lines = [line for line in ctl("logs", "--errors").stdout.splitlines() if "SENTRY_DSN" in line]
    assert len(lines) == 1
    assert "pip install 'workerd[sentry]'" in lines[0]


def test_the_key_of_the_address_is_masked(ctl: Ctl) -> None:
    ctl.environment["SENTRY_DSN"] = f"https://{KEY}@errors.example/42"
    assert ctl.json("config")["SENTRY_DSN"]["value"] == "https://********@errors.example/42"
    ctl.environment["SENTRY_DSN"] = f"https://{KEY}@errors.example"
    refused = ctl("start")
    assert refused.returncode == 2
    assert "SENTRY_DSN" in refused.stderr
    assert KEY not in refused.stderr


def start(ctl: Ctl) -> None:
    started = ctl("start")
    assert started.returncode == 0, started.stderr
