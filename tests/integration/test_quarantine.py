"""Quarantine: a row that a statement is refused for fails with its reason, and hinders no other one."""

from __future__ import annotations

import json
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from tests import handlers
from tests.support import InProcess, until, until_state
from workerd.maintenance.scheduler import Scheduler
from workerd.outcomes import Outcome
from workerd.queue import admit, ends, move, rescue, stage, tokens
from workerd.queue.claim import BEGINNING, Claimed, Wanted, claim
from workerd.queue.condition import condition
from workerd.queue.cycle import cycle
from workerd.queue.finish import Finished
from workerd.queue.lane import Lane

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from tests.manager_process import ManagerProcess
    from tests.support import Ctl
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

NODE = 4711
ENTER_NODE = """
    INSERT INTO workerd.node (id, name, pid, version, locked, tasks, queues, workers)
    VALUES ($1, 'a', 1, '0', false, '{}', '{}', 1)
"""
DEEP = '{"trace": ' * 300 + "1" + "}" * 300  # which the library reads, but the words of the wire do not
DEEPER = '{"trace": ' * 3000 + "1" + "}" * 3000

# Rows that no enqueue makes, planted into the tables: as a claim, a stage or a finish meets them.
READY = {
    "a deadline that is no number": {"options": '{"deadline": "x"}'},
    "an infinite deadline": {"options": '{"deadline": "Infinity"}'},
    "a deadline beyond what a number holds": {"options": '{"deadline": 1e400}'},
    "a deadline of null": {"options": '{"deadline": [null]}'},
    "options that are a text": {"options": '"x"'},
    "options that are a list": {"options": "[1]"},
    "options that are nested deeply": {"options": DEEP},
    "options that are nested too deeply": {"options": DEEPER},
    "a trace of another shape": {"options": '{"trace": 7}'},
    "queued at infinity": {"queued_at": "infinity"},
    "queued before all time": {"queued_at": "-infinity"},
    "an attempt too many": {"attempt": str(2**31 - 1)},
}


KINDS = """
    SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
    WHERE attrelid = format('workerd.%s', $1::text)::regclass AND attnum > 0 AND NOT attisdropped
"""


async def plant(db: DB, table: str, job: int, **columns: str) -> int:
    """Put a row into a table, its columns as text."""
    lane = await db.fetchval("SELECT workerd.lane_of('default', 0)")
    given = {"id": str(job), "lane": str(lane), "task": "echo", "payload": "{}", **columns}
    if table == "scheduled":
        given.setdefault("run_at", "now")
    kinds = {row["attname"]: row["format_type"] for row in await db.fetch(KINDS, table)}
    places = ", ".join(f"${place}::text::{kinds[name]}" for place, name in enumerate(given, 1))
    await db.execute(f"INSERT INTO workerd.{table} ({', '.join(given)}) VALUES ({places})", *given.values())  # noqa: S608 - ours
    return job


async def reason(db: DB, job: int) -> str:
    """Why it was quarantined; it is in the history alone."""
    [(state, error, mark)] = await db.fetch("SELECT state, error, fingerprint FROM workerd.history WHERE id = $1", job)
    assert (state, mark) == ("failed", "quarantine"), error
    assert not await db.fetchval("SELECT EXISTS (SELECT FROM workerd.ready WHERE id = $1)", job)
    assert await db.fetchval("SELECT reason FROM workerd.quarantined WHERE id = $1", job) == error
    return str(error)


@pytest.fixture
async def lane(db: DB) -> Lane:
    await db.execute(ENTER_NODE, NODE)
    return Lane(await db.fetchval("SELECT workerd.lane_of('default', 0)"), "default", 0)


def wanted(lane: Lane, n: int, batch: int = 500, tasks: tuple[str, ...] = ("echo",)) -> Wanted:
    return Wanted(n, [(lane, BEGINNING)], batch, tasks, free=True, alone=True, last_chance=2)


async def claim_all(db: DB, lane: Lane) -> list[Claimed]:
    """Claims until nothing is left."""
    found: list[Claimed] = []
    while (answer := await claim(db, NODE, wanted(lane, len(found) + 1000))).jobs:
        found += answer.jobs
    return found


def ended(job: Claimed, outcome: Outcome, **given: Any) -> Finished:
    return Finished(job, outcome, **{"started": 0.0, "ran": 1.0, "ttl": 60.0, "progress": None, **given})


async def test_a_claim_takes_all_jobs_but_those_that_it_is_refused_for(db: DB, queue: Queue, lane: Lane) -> None:
    good = []
    for number, columns in enumerate(READY.values(), 1):
        good += await queue.enqueue_many("echo", [{}] * 20)
        await plant(db, "ready", 10**9 + number, **columns)
    good += await queue.enqueue_many("echo", [{}] * 20)
    found = await claim_all(db, lane)
    over = 10**9 + len(READY)  # which is refused when it ends
    assert [job.id for job in found] == [*good[:-20], over, *good[-20:]]
    assert await ends.write(db, NODE, [ended(job, Outcome("succeeded")) for job in found]) == [True] * len(found)
    for number in range(1, len(READY) + 1):
        assert await reason(db, 10**9 + number)
    assert await db.fetchval("SELECT count(*) FROM workerd.history WHERE state = 'succeeded'") == len(good)
    assert (
        await db.fetchval("SELECT count(*) FROM workerd.ready")
        + await db.fetchval("SELECT count(*) FROM workerd.lease")
        == 0
    )


async def test_what_a_claim_is_refused_for_is_found_though_another_node_was_quicker(
    db: DB, queue: Queue, lane: Lane
) -> None:
    [job] = await queue.enqueue_many("echo", [{}])
    arguments = wanted(lane, 1).arguments
    assert not await db.fetchval(
        "SELECT workerd.quarantine_next($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)", NODE, *arguments
    )
    assert [each.id for each in await claim_all(db, lane)] == [job]


BAD_ENDS = {
    "a NUL in the result": Outcome("succeeded", result='{"a": "\\u0000"}'),
    "a result that is no JSON": Outcome("succeeded", result="{bad"),
    "a result nested too deeply": Outcome("succeeded", result="[" * 100_000 + "]" * 100_000),
    "an infinite delay": Outcome("retry", error="no disk", delay=float("inf")),
    "a delay that is not a number": Outcome("snooze", delay=float("nan")),
    "a delay past the end of time": Outcome("retry", error="no disk", delay=1e18),
    "a delay that is a text": Outcome("retry", error="no disk", delay="soon"),  # type: ignore[arg-type]
    "an outcome that nobody knows": Outcome("gone"),  # type: ignore[arg-type]
    "a result that is no text": Outcome("succeeded", result=7),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("way", ["write", "cycle"])
async def test_an_end_that_is_refused_fails_its_job_and_no_other(db: DB, queue: Queue, lane: Lane, way: str) -> None:
    await queue.enqueue_many("echo", [{}] * 40)
    jobs = (await claim(db, NODE, wanted(lane, 1))).jobs
    outcomes = [outcome for bad in BAD_ENDS.values() for outcome in (bad, Outcome("succeeded", result='"fine"'))]
    batch = [ended(job, outcome) for job, outcome in zip(jobs, outcomes, strict=False)]
    if way == "cycle":
        batch = [end for end in batch if end.succeeded]
        held, answer = await cycle(db, NODE, batch, wanted(lane, 2))
        assert answer.jobs == []
    else:
        held = await ends.write(db, NODE, batch)
    assert all(held)
    for end in batch:
        if end.outcome.ending == "failed":
            assert "cannot be written" in await reason(db, end.job.id)
        else:
            row = await db.fetchrow("SELECT state, result FROM workerd.history WHERE id = $1", end.job.id)
            assert tuple(row or ()) == ("succeeded", '"fine"')
    failed = [end.job.id for end in batch if end.outcome.ending == "failed"]
    assert len(failed) == len(
        BAD_ENDS if way == "write" else [each for each in BAD_ENDS.values() if each.ending == "succeeded"]
    )
    left = [job.pos for job in jobs if job not in [end.job for end in batch]]
    assert await db.fetchval("SELECT array(SELECT workerd.positions(tickets)) FROM workerd.lease") == left


async def test_a_retry_without_a_delay_waits_as_usual_and_is_never_lost(db: DB, queue: Queue, lane: Lane) -> None:
    ids = await queue.enqueue_many("echo", [{}] * 3)
    jobs = (await claim(db, NODE, wanted(lane, 1))).jobs
    outcomes = [Outcome("retry", error="no disk"), Outcome("snooze"), Outcome("failed", error="x")]
    batch = [ended(job, outcome, ttl=0.0) for job, outcome in zip(jobs, outcomes, strict=True)]
    assert await ends.write(db, NODE, batch) == [True] * 3
    waits = await db.fetch("SELECT extract(epoch FROM run_at - now())::float8 FROM workerd.scheduled ORDER BY id")
    assert [round(wait / 60) for (wait,) in waits] == [1, 1]
    assert await db.fetchval("SELECT state FROM workerd.history WHERE id = $1", ids[2]) == "failed"


async def test_a_lease_without_its_row_holds_up_no_other_end(db: DB, queue: Queue, lane: Lane) -> None:
    await queue.enqueue_many("echo", [{}] * 9)
    jobs = (await claim(db, NODE, wanted(lane, 1))).jobs
    await db.execute("DELETE FROM workerd.ready WHERE id = $1", jobs[4].id)
    held = await ends.write(db, NODE, [ended(job, Outcome("succeeded")) for job in jobs])
    assert held == [place != 4 for place in range(9)]
    assert await db.fetchval("SELECT count(*) FROM workerd.lease") == 0


async def staged(db: DB) -> None:
    while (await stage.stage(db))[0]:
        pass


async def test_the_stager_fails_what_it_cannot_queue_and_queues_the_rest(db: DB, queue: Queue) -> None:
    [double] = await queue.enqueue_many("echo", [{}])
    good = [await plant(db, "scheduled", 10**9 + number) for number in range(50)]
    await plant(db, "scheduled", double)
    endless = [await plant(db, "scheduled", 2 * 10**9 + n, run_at=at) for n, at in enumerate(("infinity", "-infinity"))]
    late = await plant(db, "scheduled", 3 * 10**9, run_at="200000-01-01")
    await staged(db)
    for job in endless:
        assert await reason(db, job) == "its run_at is infinite"
    assert "ready_id" in await db.fetchval("SELECT error FROM workerd.history WHERE id = $1", double)
    assert {row["id"] for row in await db.fetch("SELECT id FROM workerd.ready")} == {double, *good}
    assert await db.fetchval("SELECT array_agg(id) FROM workerd.scheduled") == [late]


LONG = {"tenant": "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(4000))}  # that no compression makes short


async def limit(db: DB) -> None:
    await db.execute(
        "INSERT INTO workerd.task (name, queue, priority, max_retries, limit_key) VALUES ('echo', 'default', 0, 3, 'tenant')"
        " ON CONFLICT (name) DO UPDATE SET limit_key = 'tenant'"
    )
    await db.execute("INSERT INTO workerd.limits (scope, name, origin, rate) VALUES ('key', 'echo', 'declared', 1000)")
    await db.execute("SELECT workerd.mark_limited()")


async def test_a_line_too_long_for_an_index_holds_up_neither_stager_nor_admission(db: DB, queue: Queue) -> None:
    early = await plant(db, "ready", 1, payload=json.dumps(LONG))
    await limit(db)
    job = await plant(db, "scheduled", 2, payload=json.dumps(LONG))
    good = [await plant(db, "scheduled", 10 + n, payload='{"tenant": "a"}') for n in range(5)]
    await staged(db)
    assert "index row" in await reason(db, job)
    lane = await db.fetchval("SELECT workerd.lane_of('default', 0)")
    assert await admit.hold_back(db, lane, BEGINNING) is not None
    assert "index row" in await reason(db, early)
    double = await plant(db, "ready", 3)
    await plant(db, "scheduled", double, waits="limit", line="a")
    admitted = 0
    while done := (await admit.admit(db, 100)).admitted:
        admitted += done
    assert admitted >= len(good)
    assert "ready_id" in await db.fetchval("SELECT error FROM workerd.history WHERE id = $1", double)
    assert {row["id"] for row in await db.fetch("SELECT id FROM workerd.ready")} == {double, *good}


async def test_what_cannot_be_moved_fails_and_the_rest_moves(db: DB, lane: Lane) -> None:
    await db.execute(
        "INSERT INTO workerd.queue (name, ageing) VALUES ('default', 1) ON CONFLICT (name) DO UPDATE SET ageing = 1"
    )
    higher = await db.fetchval("SELECT workerd.lane_of('default', 1)")
    bad = await plant(db, "ready", 1, options='{"aged": "x"}', queued_at="2020-01-01")
    good = await plant(db, "ready", 2, queued_at="2020-01-01")
    await move.move(db)
    assert "integer" in await reason(db, bad)
    assert await db.fetchval("SELECT lane FROM workerd.ready WHERE id = $1", good) == higher


async def test_a_rescue_takes_back_all_but_what_it_is_refused_for(db: DB, lane: Lane) -> None:
    bad = [
        await plant(db, "ready", 1, attempt=str(2**31 - 1)),
        await plant(db, "ready", 3, crashes="32767", attempt="40000"),
    ]
    good = [await plant(db, "ready", 10 + n) for n in range(20)]
    tickets = await db.fetchval("SELECT workerd.set_of(array_agg(pos))::text FROM workerd.ready")
    await db.execute(
        "INSERT INTO workerd.lease (node, n, lane, tickets, last) SELECT 1, 1, $1, $2::text::int8multirange, max(pos) FROM workerd.ready",
        lane.id,
        tickets,
    )
    await rescue.rescue(db, 3, 60.0)
    for job in bad:
        assert await reason(db, job)
    assert await db.fetchval("SELECT array_agg(id ORDER BY id) FROM workerd.ready WHERE crashes = 1") == good
    assert await db.fetchval("SELECT count(*) FROM workerd.lease") == 0


async def test_a_batch_that_cannot_be_decided_fails_alone(db: DB, queue: Queue) -> None:
    parent = await queue.enqueue("echo")
    children = [await queue.enqueue("echo", after=[parent]) for _ in range(3)]
    await db.execute("UPDATE workerd.scheduled SET options = options || '{\"batch\": true}' WHERE id = $1", children[1])
    await db.execute("UPDATE workerd.scheduled SET max_retries = 7, attempts = '7' WHERE id = $1", children[2])
    await db.execute("DELETE FROM workerd.ready WHERE id = $1", parent)
    for _ in range(5):
        await admit.settle(db, NODE, 60.0)
    await staged(db)
    assert await db.fetchval("SELECT count(*) FROM workerd.scheduled") == 0


async def test_a_schedule_whose_time_cannot_be_read_holds_up_no_other_one(db: DB) -> None:
    insert = """
        INSERT INTO workerd.schedule (name, task, payload, kind, rule, tz, catch_up, next_at)
        VALUES ($1, 'echo', '{}', 'every', $2, 'UTC', 'last', $3::text::timestamptz)
    """
    for n, (rule, at) in enumerate([("1h", "-infinity"), ("1h", "0044-03-15 BC"), ("nonsense", "2020-01-01")]):
        await db.execute(insert, f"bad {n}", rule, at)
    await db.execute(insert, "good", "1h", "2020-01-01")
    await db.execute(insert, "far", "1h", "200000-01-01")
    await db.execute(insert, "never", "1h", "infinity")
    scheduler = Scheduler()
    for _ in range(3):
        assert await scheduler.run_once(db) >= 0
    assert await db.fetchval("SELECT count(*) FROM workerd.ready WHERE key LIKE 'schedule:good%' OR key IS NULL") == 1


async def test_a_handler_that_ends_with_what_cannot_be_written_ends_its_own_job(
    node: InProcess, queue: Queue, db: DB
) -> None:
    planted = [await plant(db, "ready", 10**9 + n, **columns) for n, columns in enumerate(READY.values())]
    await db.execute("SELECT pg_notify('workerd', 'ready')")
    good = [await queue.enqueue("echo", {"value": n}) for n in range(20)]
    for job in good:
        await until_state(db, job, "succeeded")
    await until(
        lambda: db.fetchval("SELECT count(*) = $1 FROM workerd.quarantined", len(planted)), "all are quarantined"
    )
    for job in planted:
        assert await reason(db, job)


def fleet_of_two(settings: Settings, tmp_path: Path) -> list[InProcess]:
    return [
        InProcess(settings.model_copy(update={"node_name": name, "runtime_dir": tmp_path / name}))
        for name in ("one", "two")
    ]


async def drained(
    settings: Settings, tmp_path: Path, queue: Queue, db: DB, first: int, planted: dict[int, str]
) -> float:
    """Seconds in which two nodes drain 1,960 jobs, of which every tenth is staged; those that are planted lie between them."""
    before = await db.fetchval("SELECT count(*) FROM workerd.history WHERE state = 'succeeded'")
    await queue.enqueue_many("echo", [{}] * 980)
    for number, kind in planted.items():
        await plant_kind(db, kind, number)
    await queue.enqueue_many("echo", [{}] * 784)
    await db.execute(
        "INSERT INTO workerd.scheduled (id, lane, run_at, task, payload)"
        " SELECT $1::bigint + n, workerd.lane_of('default', 0), now() + interval '0.2 s', 'echo', '{}'"
        " FROM generate_series(1, 196) n",
        first,
    )
    began = monotonic()
    one, two = fleet_of_two(settings, tmp_path)
    async with one, two:
        await until(
            lambda: db.fetchval("SELECT count(*) = $1 FROM workerd.history WHERE state = 'succeeded'", before + 1960),
            "all others have succeeded",
        )
        took = monotonic() - began
        await until(
            lambda: db.fetchval(
                "SELECT count(DISTINCT id) = $1 FROM workerd.history WHERE state = 'failed'", len(planted)
            ),
            "each that was planted has failed",
        )
    return took


KINDS_PLANTED: dict[str, tuple[str, dict[str, str]]] = {
    **{
        name: ("ready", columns)
        for name, columns in READY.items()
        if name not in ("an attempt too many", "a trace of another shape")
    },
    "due at infinity": ("scheduled", {"run_at": "infinity"}),
    "due before all time": ("scheduled", {"run_at": "-infinity"}),
}
OF_HANDLERS = ("a delay of text", "a delay without end", "a delay of 1e18")


async def plant_kind(db: DB, kind: str, number: int) -> None:
    if kind in KINDS_PLANTED:
        table, columns = KINDS_PLANTED[kind]
        await plant(db, table, number, **columns)
    else:
        await plant(db, "ready", number, task="ends_with", payload=json.dumps({"kind": kind}), max_retries="0")


async def test_forty_planted_rows_among_2000_jobs_fail_and_nothing_else_does(
    settings: Settings, tmp_path: Path, queue: Queue, db: DB
) -> None:
    kinds = [*KINDS_PLANTED, *OF_HANDLERS]
    planted = {10**9 + n: kinds[n % len(kinds)] for n in range(40)}
    assert len(set(planted.values())) >= 10
    without = await drained(settings, tmp_path, queue, db, 2 * 10**9, {})
    assert await drained(settings, tmp_path, queue, db, 3 * 10**9, planted) < 4 * without + 5
    for job, kind in planted.items():
        if kind in OF_HANDLERS:  # an ordinary failure, as of any mistake in a handler
            assert "its delay cannot be used" in await db.fetchval(
                "SELECT error FROM workerd.history WHERE id = $1", job
            )
        else:
            assert await reason(db, job)
    most = await db.fetchval("SELECT max(attempt) FROM workerd.history")
    assert most <= 2
    rest = "SELECT (SELECT count(*) FROM workerd.ready) + (SELECT count(*) FROM workerd.scheduled) + (SELECT count(*) FROM workerd.lease)"
    assert await db.fetchval(rest) == 0
    assert await db.fetchval("SELECT count(*) FROM workerd.history") == 2 * 1960 + 40


async def test_doctor_and_metrics_count_them(ctl: Ctl, db: DB) -> None:
    await plant(db, "scheduled", 1, run_at="infinity")
    await stage.stage(db)
    assert (await condition(db)).quarantined == 1
    findings = json.loads(ctl("doctor", "--json").stdout)
    [found] = [each for each in findings if each["check"] == "quarantine"]
    assert found["level"] == "warning"
    assert "1 (echo): its run_at is infinite" in found["found"]


HTTP_ENDS: list[tuple[dict[str, Any], str]] = [
    ({"outcome": "retry", "error": "no disk"}, "scheduled"),
    ({"outcome": "snooze"}, "scheduled"),
    ({"outcome": "retry", "delay": None}, "scheduled"),
    ({"outcome": "failed", "ttl": 0}, "failed"),
    ({"outcome": "succeeded", "result": "{bad"}, "failed"),
    ({"outcome": "succeeded", "result": '{"a": "\\u0000"}'}, "failed"),
    ({"outcome": "succeeded", "result": "[" * 20_000 + "]" * 20_000}, "failed"),
    ({"outcome": "succeeded", "error": "no error of a success"}, "succeeded"),
    ({"outcome": "succeeded", "result": '"fine"'}, "succeeded"),
]


@pytest.mark.parametrize("path", ["finish", "claim"])
async def test_an_end_by_http_leaves_no_job_in_no_table(
    manager: ManagerProcess, queue: Queue, db: DB, path: str
) -> None:
    token = await tokens.create(db, "one", ["work"])
    jobs = await queue.enqueue_many("echo", [{}] * len(HTTP_ENDS))
    async with manager.client(token) as client:
        entered = await client.post("/api/v1/nodes", json={"name": "elsewhere", "tasks": [{"name": "echo"}]})
        node = f"/api/v1/nodes/{entered.json()['id']}"
        claimed = (await client.post(f"{node}/claim", json={"batch": 20})).json()
        ends_told = [
            {"n": claimed["n"], "pos": job["pos"], "id": job["id"], **end}
            for job, (end, _) in zip(claimed["jobs"], HTTP_ENDS, strict=True)
        ]
        told = await client.post(f"{node}/{path}", json={"ends": ends_told})
        assert (told.status_code, told.json()["held"]) == (200, [True] * len(HTTP_ENDS))
    found = {row["id"]: row["state"] for row in await db.fetch("SELECT id, state FROM workerd.job")}
    assert [found[job] for job in jobs] == [state for _, state in HTTP_ENDS]


async def test_a_node_without_a_database_fails_alone_what_asks_for_no_delay(
    remote: Settings, queue: Queue, db: DB
) -> None:
    async with InProcess(remote):
        bad = [await queue.enqueue("ends_with", {"kind": kind}, max_retries=0) for kind in handlers.BAD_DELAYS]
        good = [await queue.enqueue("echo", {"value": n}) for n in range(5)]
        for job in good:
            await until_state(db, job, "succeeded")
        for job in bad:
            assert "its delay cannot be used" in (await until_state(db, job, "failed"))["error"]
        assert not await db.fetchval("SELECT count(*) FROM workerd.lease")
