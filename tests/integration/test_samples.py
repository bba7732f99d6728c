"""Samples: what ended is counted once, longer spans are sums of shorter ones, and what is past its time goes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support import InProcess, until, until_state
from workerctl.manager.app import create_app
from workerctl.manager.page import charts
from workerd.maintenance import sampler
from workerd.maintenance.census import Census
from workerd.maintenance.sampler import Sampler
from workerd.queue import samples, tally, tokens
from workerd.queue.samples import Counts, Sample
from workerd.queue.tally import BUCKETS, Tally, bucket

if TYPE_CHECKING:
    import asyncpg

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


def counts(seconds: float, **ended: int) -> Counts:
    """Ends of jobs that ran and waited for so long."""
    histogram = [0] * BUCKETS
    histogram[bucket(seconds)] = sum(ended.values())
    return Counts(**ended, run=histogram, wait=histogram)


def tallied(succeeded: int) -> dict[tuple[str, str], Tally]:
    return {("echo", "default"): Tally(succeeded=succeeded)}


async def total(db: DB, span: int, name: str) -> Any:
    return await db.fetchval(f"SELECT sum({name})::bigint FROM workerd.sample WHERE span = $1", span)  # noqa: S608


async def test_a_daemon_that_leads_writes_down_what_ended(
    settings: Settings, queue: Queue, db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "ROUND", 0.05)

    async def sampled() -> Any:
        return await db.fetchval("SELECT count(*) FROM workerd.sample")

    async def all_counted() -> bool:
        return [await total(db, 1, name) for name in ("succeeded", "failed")] == [20, 1]

    async with InProcess(settings):
        await until(sampled, "a first sample")
        await queue.enqueue_many("echo", [{}] * 20)
        failing = await queue.enqueue("failing", {"number": 1}, max_retries=0)
        await until_state(db, failing, "failed")
        await until(all_counted, "all are counted")
    assert await db.fetchval("SELECT bool_and(run_p95 > 0 AND wait_p95 > 0) FROM workerd.sample WHERE succeeded > 0")
    assert await db.fetchval("SELECT max(queued + running + scheduled) FROM workerd.sample") >= 0


async def test_who_begins_to_sample_counts_nothing_that_was_counted_before(db: DB, queue: Queue) -> None:
    await tally.add(db, 1, tallied(5))
    first, second = Sampler(Census()), Sampler(Census())
    await first.run_once(db)
    await tally.add(db, 1, tallied(2))
    await tally.add(db, 2, tallied(4))
    await first.run_once(db)
    await second.run_once(db)
    assert await total(db, 1, "succeeded") == 6
    await tally.add(db, 1, tallied(1))
    await second.run_once(db)
    assert await total(db, 1, "succeeded") == 7


async def test_what_was_counted_in_the_five_minutes_that_end_is_not_counted_again(db: DB) -> None:
    sampling = Sampler(Census())

    async def five_minutes_later() -> None:
        await db.execute("UPDATE workerd.tally SET slot = slot - interval '5 minutes'")
        sampling._counted = {slot - timedelta(minutes=5): each for slot, each in (sampling._counted or {}).items()}

    await tally.add(db, 1, tallied(5))
    await sampling.run_once(db)
    await five_minutes_later()
    await tally.add(db, 1, tallied(3))
    await sampling.run_once(db)
    await five_minutes_later()
    await sampling.run_once(db)
    assert await total(db, 1, "succeeded") == 3


async def test_minutes_are_made_of_seconds_and_hours_of_minutes_once(db: DB) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    await samples.keep(db, 60, [Sample(hour + timedelta(minutes=n), 60.0, counts(0.1, succeeded=2)) for n in range(60)])
    minute = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)
    depths = [5, None, 7]
    seconds = [
        Sample(minute + timedelta(seconds=n), 1.0, counts(n + 1, succeeded=1, failed=1), queued=depths[n])
        for n in range(3)
    ]
    await samples.keep(db, 1, seconds)
    for _ in range(2):
        await samples.add_up(db)
    made = await db.fetch("SELECT * FROM workerd.sample WHERE span = 60 AND at = $1", minute)
    assert [(row["covers"], row["succeeded"], row["failed"], row["queued"], sum(row["run"])) for row in made] == [
        (3.0, 3, 3, 7, 6)
    ]
    assert 1900 < made[0]["run_p50"] < 2500
    hours = await db.fetch("SELECT * FROM workerd.sample WHERE span = 3600")
    assert [(row["at"], row["covers"], row["succeeded"]) for row in hours if row["at"] == hour] == [(hour, 3600.0, 120)]


async def test_what_is_past_its_time_is_forgotten(db: DB) -> None:
    now = datetime.now(UTC)
    for span, seconds in samples.KEPT.items():
        old, young = now - timedelta(seconds=seconds + 5), now - timedelta(seconds=seconds - 5)
        await samples.keep(db, span, [Sample(old, 1.0, Counts()), Sample(young, 1.0, Counts())])
    await samples.add_up(db)
    for span, seconds in samples.KEPT.items():
        oldest = await db.fetchval("SELECT min(at) FROM workerd.sample WHERE span = $1", span)
        assert oldest > now - timedelta(seconds=seconds)


async def test_the_api_gives_samples_and_the_page_draws_them(queue: Queue, db: DB) -> None:
    now = datetime.now(UTC)
    kept = [Sample(now - timedelta(seconds=100 - n), 1.0, counts(0.02, succeeded=50), queued=n) for n in range(100)]
    await samples.keep(db, 1, kept)
    app = create_app(queue)
    token = await tokens.create(db, "reader", ["read"])
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://manager", headers=headers) as client:
        answer = await client.get("/api/v1/samples")
        assert sum(sample["succeeded"] for sample in answer.json()) == 5000
        assert [(await client.get(f"/api/v1/samples?span={span}")).status_code for span in (60, 7)] == [200, 422]
        await client.post("/login", data={"token": token, "next": "/"})
        drawn = (await client.get("/")).text
        assert "Throughput in the last 10 minutes: succeeded 50/s, at most 50/s" in drawn
        assert (
            len(re.findall(r'd="M\d+ \d+h0(L\d+ \d+)+"', drawn)) == 6  # running and scheduled ones were not counted
        )
        assert "No samples yet" in (await client.get("/?range=90d")).text


async def test_a_line_is_broken_where_nobody_sampled(db: DB) -> None:
    now = datetime.now(UTC)
    ages = [*range(100, 80, -1), *range(30, 0, -1)]
    await samples.keep(db, 1, [Sample(now - timedelta(seconds=age), 1.0, Counts(), queued=1) for age in ages])
    drawn = await charts.load(db, charts.RANGES["10m"])
    assert drawn is not None
    queued = drawn.charts[2].lines[0]
    assert (queued.name, queued.path.count("M"), queued.latest) == ("queued", 2, "1")


@pytest.mark.parametrize(("value", "edge"), [(0, 1), (0.03, 0.05), (1, 1), (1.1, 2), (4.9, 5), (700, 1000)])
def test_the_upper_edge_is_a_round_number(value: float, edge: float) -> None:
    assert charts._round_up(value) == pytest.approx(edge)


async def test_what_stops_one_service_of_the_leader_stops_no_other(
    settings: Settings, queue: Queue, db: DB, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A table of samples that takes none: a job that is scheduled for later starts all the same."""
    monkeypatch.setattr(sampler, "ROUND", 0.05)
    await db.execute("ALTER TABLE workerd.sample ADD CHECK (false)")
    async with InProcess(settings):
        await until(lambda: _said(caplog, "Sampler: new row"), "the sampler fails")
        job = await queue.enqueue("echo", delay=0.2)
        await until_state(db, job, "succeeded")


async def _said(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return any(text in record.getMessage() for record in caplog.records)
