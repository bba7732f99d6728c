"""What failed: grouped by what it said, with every attempt; and queued again, one or many."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support import Ctl, InProcess, until, until_state
from workerd import JobFailed

if TYPE_CHECKING:
    import asyncpg

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


async def fail(queue: Queue, db: DB, how: str, *numbers: int) -> list[int]:
    jobs = [await queue.enqueue("failing", {"number": number, "how": how}) for number in numbers]
    for job in jobs:
        await until_state(db, job, "failed")
    return jobs


async def test_what_failed_alike_is_listed_together_and_changed_together(
    node: InProcess, queue: Queue, db: DB, ctl: Ctl
) -> None:
    orders = await fail(queue, db, "order", 1, 2, 3)
    customers = await fail(queue, db, "Ada", 4, 5)
    one, other = ctl.json("jobs", "errors", "--task", "failing")
    assert (one["count"], one["jobs"], one["example"], one["task"]) == (3, 3, orders[-1], "failing")
    assert one["error"] == "ValueError: order 3 is wrong"
    assert one["first_seen"] <= one["last_seen"]
    assert (other["count"], other["error"]) == (2, "no customer 5 at 'Ada'")
    assert ctl.json("jobs", "errors", "--task", "echo") == []
    assert "ValueError: order 3 is wrong" in ctl("jobs", "errors", "--hours", "1").stdout
    listed = ctl.json("jobs", "list", "--fingerprint", other["fingerprint"])
    assert {job["id"] for job in listed} == set(customers)
    done = ctl("jobs", "retry", "--fingerprint", one["fingerprint"], "--yes")
    assert done.stdout.splitlines() == ["3 jobs fit", "3 retried"]
    for job in orders:
        assert (await until_state(db, job, "failed"))["attempt"] == 2
    (again,) = [each for each in ctl.json("jobs", "errors") if each["fingerprint"] == one["fingerprint"]]
    assert (again["count"], again["jobs"]) == (6, 3)


async def test_an_attempt_that_was_retried_with_success_is_a_failure_as_well(
    node: InProcess, queue: Queue, ctl: Ctl
) -> None:
    job = await queue.enqueue("stumble", {"until_attempt": 3})
    assert await queue.result(job, timeout=60) == 3
    (found,) = ctl.json("jobs", "errors")
    assert (found["count"], found["jobs"], found["example"]) == (2, 1, job)
    assert ctl.json("jobs", "list", "--fingerprint", found["fingerprint"]) == []


async def test_every_attempt_is_shown_with_the_traceback_of_the_last_failure(
    node: InProcess, queue: Queue, ctl: Ctl
) -> None:
    job = await queue.enqueue("stumble", {"until_attempt": 99})
    with pytest.raises(JobFailed):
        await queue.result(job, timeout=60)
    shown = ctl.json("jobs", "show", str(job))
    assert [a["attempt"] for a in shown["attempts"]] == [1, 2, 3]
    assert {a["node"] for a in shown["attempts"]} == {node.settings.node}
    assert {a["outcome"] for a in shown["attempts"]} == {"failed"}
    assert all(a["started_at"] <= a["ended_at"] for a in shown["attempts"])
    assert all("Traceback" in a["error"] for a in shown["attempts"])
    text = ctl("jobs", "show", str(job)).stdout
    assert text.count("Traceback") == 1
    assert "ValueError: attempt 1 stumbles" in text
    assert text.rstrip().endswith("ValueError: attempt 3 stumbles")


async def test_the_list_of_attempts_stays_small_whatever_they_said(db: DB) -> None:
    size = await db.fetchval(
        """
        WITH RECURSIVE step AS (
            SELECT 0 AS n, NULL::jsonb AS list
            UNION ALL
            SELECT n + 1, workerd.with_attempt(list, n + 1, 'node', now(), 'failed', 'first ' || repeat('x', 16000) || ' last', 'f')
            FROM step WHERE n < 50)
        SELECT list FROM step WHERE n = 50
        """
    )
    assert len(size) < 100_000
    assert size.count('"attempt"') == 20
    assert '"attempt": 50' in size
    assert size.count("first ") == size.count(" last") == 20


async def test_ten_thousand_failed_jobs_are_queued_again_within_seconds(queue: Queue, db: DB, ctl: Ctl) -> None:
    await db.execute("SELECT workerd.enqueue('failing', '{\"number\": 1}')")
    await db.execute(
        """
        INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, node, enqueued_at, queued_at, started_at,
            task, payload, error, fingerprint)
        SELECT nextval('workerd.job_id'), workerd.expiry(86400), 1, 'failed', 1, 1, 0, 7, now(), now(), now(), 'failing', '{}', 'x', 'abc'
        FROM generate_series(1, 10000)
        """
    )
    refused = ctl("jobs", "retry", "--state", "failed")
    assert (refused.returncode, refused.stdout) == (2, "10000 jobs fit\n")
    assert "add --yes" in refused.stderr
    began = time.monotonic()
    done = ctl("jobs", "retry", "--fingerprint", "abc", "--yes")
    took = time.monotonic() - began
    assert done.stdout.splitlines() == ["10000 jobs fit", "10000 retried"]
    assert await db.fetchval("SELECT count(*) FROM workerd.ready") == 10001
    assert took < 20
    again = ctl("jobs", "retry", "1", "2", "999999")
    assert again.returncode == 1
    assert again.stderr.startswith("workerctl: 3 refused, the first one: job 1 is queued: only failed")


async def test_what_an_older_daemon_writes_is_kept_without_a_fingerprint(
    settings: Settings, queue: Queue, db: DB
) -> None:
    """Its call has ten arguments."""
    job = await queue.enqueue("nobody's")
    row = await db.fetchrow("SELECT lane, pos FROM workerd.ready WHERE id = $1", job)
    assert row is not None
    await db.execute(
        "INSERT INTO workerd.node (id, name, pid, version, locked, tasks, queues, workers) VALUES (7, 'old', 1, '0', false, '{}', '{}', 1)"
    )
    await db.execute("INSERT INTO workerd.lease VALUES (7, 1, $1, workerd.set_of(ARRAY[$2::bigint]), '{}', $2)", *row)
    await db.fetchval(
        "SELECT workerd.finish(7, '{1}', ARRAY[$1::bigint], '{failed}', '{NULL}', '{x}', '{NULL}', '{1}', '{60}', '{NULL}')",
        row["pos"],
    )
    assert await db.fetchval("SELECT fingerprint FROM workerd.job WHERE id = $1", job) == "other"


async def test_no_secret_of_the_settings_is_kept_with_a_failure(settings: Settings, queue: Queue, db: DB) -> None:
    async with InProcess(settings.model_copy(update={"openai_api_key": "sk-very-hidden"})):
        job = await queue.enqueue("failing", {"number": 1, "how": "sk-very-hidden"})
        row = await until(
            lambda: db.fetchrow("SELECT error FROM workerd.job WHERE id = $1 AND state = 'failed'", job), "it fails"
        )
    assert row["error"] == "no customer 1 at '********'"
