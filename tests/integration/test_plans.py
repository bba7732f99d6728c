"""The work of each hot statement is that of its own jobs, however many others wait, are scheduled or have ended.

Plans are read where they run, inside the functions too: on empty tables, on full ones, and in a session that made its plans while they
were empty.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import random
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from tests.shared import locked, of_this_run
from workerd.outcomes import SUCCEEDED, Outcome
from workerd.queue import (
    claim,
    cycle,
    enqueue,
    finish,
    inspect,
    node,
    orders,
    pages,
    progress,
    prune,
    rescue,
    signals,
    stage,
    steps,
)
from workerd.queue.claim import BEGINNING, Claimed, Wanted
from workerd.queue.database import CLAIMS
from workerd.queue.lane import Lane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from workerd.outcomes import Ending

    DB = asyncpg.Connection[asyncpg.Record]

FEW, MANY = 40_000, 400_000  # jobs in each of ready and scheduled, and half as many in history and among the keys
LEASES = 1000
OURS, GONE = 10**12, 10**12 + 1  # nodes: ours, and one that died
MOST_ROWS = 2 * LEASES + 1500  # that one step of a plan may look at: all tickets on lease, and a batch
GOOD: list[Ending] = ["succeeded"] * 8
BIG = {"ready", "scheduled", "history", "lease", "key"}
SMALL_INDEXES = {
    "node_pkey",
    "queue_pkey",
    "lane_pkey",
    "lane_place",
    "task_pkey",
    "history_day_pkey",
    "progress_pkey",
    "tally_pkey",
    "job_log_at",
    "quarantined_at",
    "node_order_pkey",
    "node_order_node",
    "step_pkey",
    "awaited_pkey",
    "signal_pkey",
    "signal_untaken",
    "slot_pkey",
    "unlooked_pkey",
    "limits_pkey",
    "bucket_pkey",
    "audit_pkey",
    "dependency_open",  # whether anybody waits for any job
}

_LISTEN = """
    LOAD 'auto_explain';
    SET auto_explain.log_min_duration = -1;
    SET auto_explain.log_nested_statements = on;
    SET auto_explain.log_analyze = on;
    SET auto_explain.log_buffers = on;
    SET auto_explain.log_timing = off;
    SET auto_explain.log_format = json;
    SET client_min_messages = log
"""
_FILL = """
    SET synchronous_commit = off;
    INSERT INTO workerd.node (id, name, pid, version, locked, tasks, queues, workers)
        SELECT g, 'node ' || g, g, '1', false, '{}', '{}', 1 FROM generate_series(1, 50) g;
    SELECT workerd.lane_of('full', 0), setval('workerd.ticket', :jobs), setval('workerd.job_id', 4 * :jobs);
    INSERT INTO workerd.ready (lane, pos, id, task, payload)
        SELECT l.id, g, g, 'echo', '{}' FROM workerd.lane l, generate_series(1, :jobs) g WHERE l.queue = 'full';
    INSERT INTO workerd.lease (node, n, lane, tickets, last)
        SELECT 1 + g % 50, g, l.id, int8multirange(int8range(2 * g - 1, 2 * g + 1)), 2 * g
        FROM workerd.lane l, generate_series(1, :leases) g WHERE l.queue = 'full';
    INSERT INTO workerd.scheduled (id, lane, run_at, task, payload)
        SELECT :jobs + g, l.id, now() + interval '1 hour' + g * interval '1 ms', 'echo', '{}'
        FROM workerd.lane l, generate_series(1, :jobs) g WHERE l.queue = 'full';
    INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, node, enqueued_at, queued_at, started_at,
            task, payload, error)
        SELECT 2 * :jobs + g, (SELECT min(day) FROM workerd.history_day) + g % 2, l.id, 'failed', 1, 1, 0, 1, now(), now(), now(),
            'echo', '{}', 'why'
        FROM workerd.lane l, generate_series(1, :jobs / 2) g WHERE l.queue = 'full';
    INSERT INTO workerd.key (key, id) SELECT 'key ' || g, g FROM generate_series(1, :jobs / 2) g
"""
_NO_VACUUM = """
    DO $$ DECLARE t regclass; BEGIN
        FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'workerd'::regnamespace AND relkind = 'r' LOOP
            EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', t);
        END LOOP;
    END $$
"""


@dataclass(frozen=True)
class Step:
    """One node of a plan and what it did."""

    kind: str
    relation: str  # partitions and their indexes have the name of the whole
    index: str
    rows: float  # looked at: returned or thrown away
    query: str


@dataclass
class Seen:
    """What one or more calls of a statement did."""

    steps: list[Step] = field(default_factory=list)
    blocks: int = 0  # of the statement that touched the most, with all it called

    def __add__(self, later: Seen) -> Seen:
        """Of several calls; what the first one touches to begin with is not counted."""
        return Seen(self.steps + later.steps, min(self.blocks, later.blocks))

    @property
    def most_rows(self) -> float:
        return max(step.rows for step in self.steps)

    @property
    def indexes(self) -> set[str]:
        return {step.index for step in self.steps if step.index}


class Listener:
    """A session whose plans are heard."""

    def __init__(self, connection: DB) -> None:
        self.connection = connection
        self._plans: list[dict[str, Any]] = []
        connection.add_log_listener(self._heard)

    def _heard(self, _connection: Any, message: Any) -> None:
        _, found, plan = str(message.message).partition("plan:\n")
        if found:
            self._plans.append(json.loads(plan))

    async def hear(self, call: Callable[[], Awaitable[Any]]) -> Seen:
        await self.connection.execute("SET auto_explain.log_min_duration = 0")
        self._plans.clear()
        await call()
        # within a transaction a statement ends, and its plan is told, when the next one begins
        await self.connection.execute("SET auto_explain.log_min_duration = -1")
        await asyncio.sleep(0)  # listeners are called by the loop
        plans = [plan for plan in self._plans if "pg_catalog" not in plan["Query Text"]]  # the driver asks about types
        assert plans, "no plan was heard"
        steps = [step for plan in plans for step in _steps(plan["Plan"], plan["Query Text"])]
        return Seen(steps, max(_blocks(plan["Plan"]) for plan in plans))


def _steps(plan: dict[str, Any], query: str) -> Iterator[Step]:
    loops = plan["Actual Loops"]
    thrown = sum(plan.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck", "Join Filter"))
    yield Step(
        plan["Node Type"],
        re.sub(r"^history_\d+$", "history", plan.get("Relation Name", "")),
        re.sub(r"^history_\d+_", "history_", plan.get("Index Name", "")).removesuffix("_idx"),
        loops * (plan["Actual Rows"] + thrown),
        " ".join(query.split()),
    )
    for child in plan.get("Plans", ()):
        yield from _steps(child, query)


def _blocks(plan: dict[str, Any]) -> int:
    hit, read = plan["Shared Hit Blocks"], plan["Shared Read Blocks"]
    assert isinstance(hit, int)
    assert isinstance(read, int)
    return hit + read


@asynccontextmanager
async def _listening(dsn: str, *, claims: bool = False) -> AsyncIterator[Listener]:
    connection = await asyncpg.connect(dsn, server_settings=CLAIMS if claims else {})
    try:
        await connection.execute(_LISTEN)
        yield Listener(connection)
    except asyncpg.UndefinedFileError:
        pytest.skip("this PostgreSQL came without auto_explain")
    finally:
        await connection.close()


class Scene:
    """A few jobs of our own in a lane of theirs, made anew in the transaction of each call."""

    # The first one is too large to be part of a claim's answer.
    PAYLOADS = (json.dumps({"value": random.Random(1).randbytes(35_000).hex()}), *("{}",) * 7)

    def __init__(self, connection: DB) -> None:
        self.db = connection
        self.lane = Lane(0, "ours", 0)
        self.low = BEGINNING
        self.ids: list[int] = []
        self.jobs: list[Claimed] = []

    async def set(self) -> None:
        self.lane = Lane(await self.db.fetchval("SELECT workerd.lane_of('ours', 0)"), "ours", 0)
        await node.register(self.db, OURS, node.Registration("ours", 1, "1", 5, ["echo"], []), workers=1, locked=False)
        self.ids = [
            await self.enqueue(f"ours {n}" if n % 2 else None, payload) for n, payload in enumerate(self.PAYLOADS)
        ]
        self.low = await self.db.fetchval("SELECT min(pos) FROM workerd.ready WHERE id = ANY ($1)", self.ids)

    async def enqueue(self, key: str | None = None, payload: str = "{}", **options: Any) -> int:
        given = {"queue": "ours", "priority": 0, "key": key, **options}
        return await enqueue.one(self.db, enqueue.options("echo", given), payload)

    async def claim(
        self, low: int | None = None, lane: Lane | None = None, *, n: int = 1, batch: int = 8
    ) -> list[Claimed]:
        self.jobs = (await claim.claim(self.db, OURS, self.wanted(low, lane, n=n, batch=batch))).jobs
        return self.jobs

    def wanted(
        self, low: int | None = None, lane: Lane | None = None, *, n: int = 1, batch: int = 8, rest: bool = False
    ) -> Wanted:
        target = (lane or self.lane, self.low if low is None else low)
        return Wanted(n, [target], batch, ["echo"], free=True, alone=True, last_chance=2, rest=rest)

    async def full_lane(self) -> Lane:
        return Lane(await self.db.fetchval("SELECT workerd.lane_of('full', 0)"), "full", 0)

    def ends(self, *endings: Ending, ttl: float = 3600, fraction: float | None = 0.5) -> list[finish.Finished]:
        return [
            finish.Finished(job, _outcome(ending, delay), 0.0, 0.1, ttl, fraction)
            for job, ending, delay in zip(self.jobs, endings, (1.0, 0.0) * 4, strict=False)
        ]


def _outcome(ending: Ending, delay: float) -> Outcome:
    return Outcome(ending, "1") if ending == "succeeded" else Outcome(ending, error="it", delay=delay)


@dataclass(frozen=True)
class Statement:
    """What is called, what has to be there before, and the indexes by which it finds rows of big tables."""

    act: Callable[[Scene], Awaitable[Any]]
    indexes: set[str]
    arrange: Callable[[Scene], Awaitable[Any]] | None = None
    may_scan: frozenset[str] = frozenset()  # what cannot grow: leases that live, for plans a driver keeps
    may_use: frozenset[str] = frozenset()  # indexes of which one or the other serves


async def _claim_full(scene: Scene) -> None:
    """As a daemon whose bound is behind all leases, and from the beginning."""
    lane = await scene.full_lane()
    await scene.claim(2 * LEASES + 1, lane, n=2, batch=500)
    await scene.claim(BEGINNING, lane, n=3, batch=500)


async def _one_more(scene: Scene) -> None:
    await scene.enqueue(queue="full")


async def _claim_and_leave(scene: Scene) -> None:
    await scene.claim()
    await _one_more(scene)


async def _finish(scene: Scene) -> None:
    endings: list[Ending] = ["retry", "retry", "succeeded", "snooze", "failed", "cancelled", "returned", "succeeded"]
    assert all(await finish.finish(scene.db, OURS, scene.ends(*endings)))


def _plain(scene: Scene) -> list[finish.Finished]:
    return [finish.Finished(job, SUCCEEDED, 0.0, 0.1, 0, None) for job in scene.jobs if job.key is None]


async def _finish_plain(scene: Scene) -> None:
    assert all(await finish.finish(scene.db, OURS, _plain(scene)))


async def _finish_kept(scene: Scene) -> None:
    assert all(await finish.finish(scene.db, OURS, scene.ends(*GOOD)))


async def _cycle(scene: Scene) -> None:
    """Of both kinds in one call, with the claim from a lane full of others."""
    wanted = scene.wanted(BEGINNING, await scene.full_lane(), n=2, batch=500)
    kept = [end for end in scene.ends(*GOOD, fraction=None) if end.job.key is not None]
    held, answer = await cycle.cycle(scene.db, OURS, [*_plain(scene), *kept], wanted)
    assert held == [True] * 8
    assert answer.jobs


async def _claim_nothing(scene: Scene) -> None:
    """As a daemon that falls asleep."""
    answer = await claim.claim(scene.db, OURS, scene.wanted(2**62, rest=True))
    assert (answer.lane, answer.jobs) == (None, [])


async def _enqueue_once(scene: Scene) -> None:
    held = await scene.enqueue("new key")
    assert await scene.enqueue("new key") == held
    await scene.enqueue("another", delay=60)


async def _copy(scene: Scene) -> None:
    plain = enqueue.options("echo", {"queue": "ours"})
    assert len(await enqueue.many(scene.db, plain, ["{}"] * enqueue.COPY_FROM)) == enqueue.COPY_FROM
    later = enqueue.options("echo", {"queue": "ours", "delay": 60})
    assert len(await enqueue.many(scene.db, later, ["{}"] * enqueue.COPY_FROM)) == enqueue.COPY_FROM


async def _wake(scene: Scene) -> None:
    await scene.db.execute("SELECT workerd.wake($1)", scene.lane.id)


async def _give_back(scene: Scene) -> None:
    assert await finish.give_back(scene.db, OURS, 1, [scene.jobs[1].pos], 60) == 1
    assert await finish.give_back(scene.db, OURS, 1, None, 60) == 6  # one had been cancelled


async def _cancel_running(scene: Scene) -> None:
    await scene.claim()
    await scene.db.fetchval("SELECT workerd.cancel($1, 60)", scene.ids[2])


async def _die(scene: Scene) -> None:
    await _cancel_running(scene)
    await scene.db.execute("UPDATE workerd.ready SET crashes = 2, attempt = 2 WHERE id = $1", scene.jobs[1].id)
    await scene.db.execute("UPDATE workerd.node SET dead_at = now() WHERE id = $1", OURS)


async def _rescue(scene: Scene) -> None:
    assert len(await rescue.rescue(scene.db, 3, 60)) == 7


async def _make_due(scene: Scene) -> None:
    due = [await scene.enqueue(run_at=datetime.now(UTC) + timedelta(hours=1)) for _ in range(20)]
    await scene.db.execute("UPDATE workerd.scheduled SET run_at = now() - interval '1 s' WHERE id = ANY ($1)", due)


async def _stage_due(scene: Scene) -> None:
    assert (await stage.stage(scene.db))[0] == 20


async def _stage_nothing(scene: Scene) -> None:
    assert (await stage.stage(scene.db))[0] == 0


async def _enqueue(scene: Scene) -> None:
    await scene.enqueue()
    await scene.enqueue(delay=60)
    plain = enqueue.options("echo", {"queue": "ours"})
    assert len(await enqueue.many(scene.db, plain, ["{}"] * 100)) == 100


async def _scheduled_one(scene: Scene) -> None:
    scene.ids.append(await scene.enqueue("later", delay=3600))


async def _ended_one(scene: Scene) -> None:
    await scene.claim()
    await finish.finish(scene.db, OURS, scene.ends("failed"))


def _cancel(place: int, was: str) -> Callable[[Scene], Awaitable[None]]:
    async def cancel(scene: Scene) -> None:
        assert await scene.db.fetchval("SELECT workerd.cancel($1, 60)", scene.ids[place]) == was

    return cancel


def _retry(place: int, was: str) -> Callable[[Scene], Awaitable[None]]:
    async def retry(scene: Scene) -> None:
        assert await scene.db.fetchval("SELECT workerd.retry($1)", scene.ids[place]) == was

    return retry


async def _hold(scene: Scene) -> None:
    """What a node asks and tells about what it holds."""
    assert len(await finish.own_leases(scene.db, OURS)) == 1
    assert await finish.holds(scene.db, scene.jobs[0], 1)
    assert await finish.split(scene.db, scene.jobs[0], 2)
    await progress.report(scene.db, OURS, [progress.Progress(job, 0.5, "half") for job in scene.jobs])


async def _live(scene: Scene) -> None:
    figures = node.Figures()
    await node.register(scene.db, GONE, node.Registration("gone", 1, "1", 5, [], []), workers=1, locked=False)
    assert await node.beat(scene.db, GONE, figures)
    sight = next(s for s in await rescue.look(scene.db) if s.id == GONE)
    assert await rescue.declare_dead(scene.db, sight)
    await node.leave(scene.db, OURS, figures)


async def _order(scene: Scene) -> None:
    order = await orders.give(scene.db, OURS, "scale", {"workers": 2})
    assert order is not None
    assert [each.id for each in await orders.waiting(scene.db, OURS)] == [order]
    await orders.done(scene.db, OURS, order, {"workers": 2}, None)


async def _report(scene: Scene) -> None:
    await scene.claim()
    await progress.report(scene.db, OURS, [progress.Progress(job, 0.5, None) for job in scene.jobs])
    await scene.db.execute("UPDATE workerd.progress SET id = id + 1000 WHERE id = $1", scene.ids[0])


async def _step(scene: Scene) -> None:
    job = scene.jobs[0]
    assert await steps.known(scene.db, job.id) == {}
    assert await steps.keep(scene.db, job, "first", "1") == "1"
    assert (await signals.look(scene.db, job, "approved", 60))[1] is not None


async def _answer(scene: Scene) -> None:
    assert await signals.send(scene.db, scene.ids[-1], "approved", "1")
    await signals.wake(scene.db)
    run_at = "SELECT run_at < now() + interval '1 min' FROM workerd.scheduled WHERE id = $1"
    assert await scene.db.fetchval(run_at, scene.ids[-1])


async def _wait(scene: Scene) -> None:
    """A job that waits for its answer."""
    await _scheduled_one(scene)
    attempts = """'[{"outcome": "snoozed"}]'"""
    await scene.db.execute(f"UPDATE workerd.scheduled SET attempts = {attempts} WHERE id = $1", scene.ids[-1])  # noqa: S608 - ours
    await scene.db.execute(
        "INSERT INTO workerd.awaited (id, event, until) VALUES ($1, 'approved', now() + interval '1 h')", scene.ids[-1]
    )


async def _prune(scene: Scene) -> None:
    assert await prune.prune(scene.db, 60) == []


async def _nodes(scene: Scene) -> None:
    told = await inspect.nodes(scene.db)
    assert [node["runs"] for node in told if node["id"] == str(OURS)] == [{"echo": len(scene.jobs)}]


# These look wherever the job may be.
EITHER = frozenset({"history_id", "history_state_id"})  # a job that has not succeeded is found by both
STATUS = {"ready_id", "lease_last", "scheduled_pkey", "history_id"}
STATEMENTS = {
    "claim": Statement(Scene.claim, {"ready_pkey", "lease_last"}),
    "claim among many": Statement(_claim_full, {"ready_pkey", "lease_last"}, _one_more),
    "claim of nothing": Statement(_claim_nothing, {"ready_pkey"}),
    "finish": Statement(_finish, {"lease_pkey", "ready_pkey", "key_pkey", "progress_pkey"}, Scene.claim),
    "finish_succeeded, nothing kept": Statement(_finish_plain, {"lease_pkey", "ready_pkey"}, Scene.claim),
    "finish_succeeded, all kept": Statement(
        _finish_kept, {"lease_pkey", "ready_pkey", "key_pkey", "progress_pkey"}, Scene.claim
    ),
    "cycle": Statement(_cycle, {"lease_pkey", "lease_last", "ready_pkey", "key_pkey"}, _claim_and_leave),
    "give_back": Statement(_give_back, {"lease_pkey", "ready_pkey", "key_pkey"}, _cancel_running),
    "rescue": Statement(_rescue, {"lease_pkey", "ready_pkey", "key_pkey"}, _die),
    "stage of due jobs": Statement(_stage_due, {"scheduled_due", "scheduled_pkey"}, _make_due),
    "stage of nothing": Statement(_stage_nothing, {"scheduled_due"}),
    "enqueue": Statement(_enqueue, set()),
    "enqueue with a key": Statement(_enqueue_once, {"key_pkey"}),
    "enqueue by COPY": Statement(_copy, set()),
    "wake": Statement(_wake, set()),
    "cancel of a queued job": Statement(_cancel(3, "queued"), STATUS | {"ready_pkey", "key_pkey"}),
    "cancel of a running job": Statement(_cancel(3, "running"), STATUS | {"lease_pkey"}, Scene.claim),
    "cancel of a scheduled job": Statement(_cancel(-1, "scheduled"), STATUS | {"key_pkey"}, _scheduled_one),
    "cancel of a final job": Statement(_cancel(0, "final"), STATUS, _ended_one),
    "retry of a failed job": Statement(_retry(0, "failed"), {"scheduled_pkey"}, _ended_one, may_use=EITHER),
    "retry of a scheduled job": Statement(_retry(-1, "scheduled"), {"scheduled_pkey"}, _scheduled_one),
    "retry of a running job": Statement(_retry(0, "running"), STATUS, Scene.claim, may_use=EITHER),
    "what a node holds": Statement(_hold, {"lease_pkey"}, Scene.claim, may_scan=frozenset({"lease"})),
    "the registry of nodes": Statement(_live, set()),
    "orders to nodes": Statement(_order, set()),
    "steps of a running job": Statement(_step, {"lease_pkey"}, Scene.claim, may_scan=frozenset({"lease"})),
    "an answer to a job that waits": Statement(_answer, {"ready_id", "scheduled_pkey"}, _wait),
    "what nodes run": Statement(_nodes, {"ready_pkey"}, Scene.claim, may_scan=frozenset({"lease"})),
    "prune": Statement(
        _prune, {"ready_id", "scheduled_pkey", "lease_pkey", "history_id", "dependency_pkey"}, _report, may_use=EITHER
    ),
}
OF_A_CLAIMER = {"claim", "claim among many", "claim of nothing", "cycle"}
STATES = ("new", "empty", "full but planned while empty", "full")


async def _run(listener: Listener, statement: Statement, *, heard: bool = True) -> Seen:
    """One call in a transaction of its own, which leaves nothing behind."""
    transaction = listener.connection.transaction()
    await transaction.start()
    try:
        scene = Scene(listener.connection)
        await scene.set()
        if statement.arrange is not None:
            await statement.arrange(scene)
        if heard:
            return await listener.hear(lambda: statement.act(scene))
        await statement.act(scene)
        return Seen()
    finally:
        await transaction.rollback()


@asynccontextmanager
async def _both(dsn: str) -> AsyncIterator[tuple[Listener, Listener]]:
    """Any session, and one of a claimer."""
    async with _listening(dsn) as anyone, _listening(dsn, claims=True) as claimer:
        yield anyone, claimer


async def _hear_all(listeners: tuple[Listener, Listener], calls: int) -> dict[str, Seen]:
    """The first and the last of some calls each: from the sixth on a session may keep a plan for all arguments."""
    heard = {}
    for name, statement in STATEMENTS.items():
        listener = listeners[name in OF_A_CLAIMER]
        runs = [await _run(listener, statement, heard=n in (1, calls)) for n in range(1, calls + 1)]
        heard[name] = runs[0] + runs[-1]
    return heard


async def _hear_states(dsn: str, jobs: int) -> dict[str, dict[str, Seen]]:
    heard = {}
    maker = await asyncpg.connect(dsn)
    await maker.execute(_NO_VACUUM)
    async with _both(dsn) as listeners:
        heard["new"] = await _hear_all(listeners, 1)
    await maker.execute("VACUUM ANALYZE")
    async with _both(dsn) as listeners:
        heard["empty"] = await _hear_all(listeners, 8)
        await maker.execute(_FILL.replace(":jobs", str(jobs)).replace(":leases", str(LEASES)))
        heard["full but planned while empty"] = await _hear_all(listeners, 1)
    await maker.execute("ANALYZE")
    async with _both(dsn) as listeners:
        heard["full"] = await _hear_all(listeners, 8)
    await maker.close()
    return heard


@pytest.fixture(scope="module", params=[FEW, pytest.param(MANY, marks=pytest.mark.long)])
def heard(
    server: str, template: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Seen]]:
    """What each statement did in each state of the tables: heard by the first test process that asks."""
    kept = of_this_run(tmp_path_factory) / f"heard-{request.param}"
    with locked(kept.with_suffix(".lock")):
        if not kept.exists():
            kept.write_bytes(pickle.dumps(_heard_on(server, template, request.param)))
        found: dict[str, dict[str, Seen]] = pickle.loads(kept.read_bytes())  # noqa: S301 - our own
        return found


def _heard_on(server: str, template: str, jobs: int) -> dict[str, dict[str, Seen]]:
    name = "workerd_test_plans"

    async def ask(*sql: str) -> None:
        connection = await asyncpg.connect(server)
        for each in sql:
            await connection.execute(each)
        await connection.close()

    head, mark, query = server.partition("?")
    asyncio.run(ask(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name} TEMPLATE {template}"))
    try:
        return asyncio.run(_hear_states(f"{head.rpartition('/')[0]}/{name}{mark}{query}", jobs))
    finally:
        asyncio.run(ask(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.mark.parametrize("name", STATEMENTS)
@pytest.mark.parametrize("state", STATES)
def test_a_statement_finds_its_rows_by_the_index_meant_for_it(
    heard: dict[str, dict[str, Seen]], state: str, name: str
) -> None:
    statement, seen = STATEMENTS[name], heard[state][name]
    scans = [s for s in seen.steps if s.kind.endswith("Seq Scan") and s.relation in BIG - statement.may_scan]
    assert not scans
    if not statement.may_scan:
        assert statement.indexes <= seen.indexes
    assert seen.indexes <= statement.indexes | statement.may_use | SMALL_INDEXES


@pytest.mark.parametrize("name", STATEMENTS)
@pytest.mark.parametrize("state", STATES)
def test_a_statement_looks_at_no_jobs_of_others(heard: dict[str, dict[str, Seen]], state: str, name: str) -> None:
    assert [step for step in heard[state][name].steps if step.rows > MOST_ROWS] == []


def test_a_claim_touches_no_more_when_more_jobs_wait_are_scheduled_or_have_ended(
    heard: dict[str, dict[str, Seen]],
) -> None:
    few = heard["empty"]["claim"]
    for state in STATES[2:]:
        many = heard[state]["claim"]
        assert many.most_rows == few.most_rows == len(Scene.PAYLOADS), state
        assert many.blocks <= few.blocks + 25, state  # indexes have more levels
        assert heard[state]["claim among many"].blocks < 200, state
    assert any("payload::text FROM workerd.ready" in step.query for step in few.steps), (
        "no payload was asked for by itself"
    )


async def test_a_claim_behind_its_low_bound_touches_no_dead_versions(dsn: str) -> None:
    """An old snapshot keeps them all, so that even their index entries stay."""
    dead = 100_000
    observer = await asyncpg.connect(dsn)
    snapshot = observer.transaction(isolation="repeatable_read")
    async with _listening(dsn, claims=True) as listener:
        scene = Scene(listener.connection)
        await scene.set()
        fresh = await _blocks_of_a_claim(listener, scene, scene.low)
        await snapshot.start()
        await observer.fetchval("SELECT count(*) FROM workerd.ready")
        await scene.db.execute(
            """WITH made AS (SELECT nextval('workerd.ticket') AS pos FROM generate_series(1, $2))
            INSERT INTO workerd.ready (lane, pos, id, task, payload) SELECT $1, pos, -pos, 'echo', '{}' FROM made""",
            scene.lane.id,
            dead,
        )
        await scene.db.execute(
            """INSERT INTO workerd.lease (node, n, lane, tickets, last)
            SELECT 1, -pos, lane, int8multirange(int8range(pos, pos + 1)), pos FROM workerd.ready WHERE id < 0"""
        )
        await scene.db.execute("DELETE FROM workerd.lease WHERE n < 0")
        await scene.db.execute("DELETE FROM workerd.ready WHERE lane = $1", scene.lane.id)
        scene.ids = [await scene.enqueue() for _ in scene.PAYLOADS]
        low = await scene.db.fetchval("SELECT min(pos) FROM workerd.ready WHERE lane = $1", scene.lane.id)
        assert await _blocks_of_a_claim(listener, scene, low) <= fresh + 100
        assert await _blocks_of_a_claim(listener, scene, BEGINNING) > dead / 100, "the dead ones were not there"
        await snapshot.rollback()
    await observer.close()


async def _blocks_of_a_claim(listener: Listener, scene: Scene, low: int) -> int:
    """At the second time: the first one learns the tables."""
    touched = []
    for _ in range(2):
        transaction = scene.db.transaction()
        await transaction.start()
        seen = await listener.hear(lambda: scene.claim(low))
        assert len(scene.jobs) == len(scene.ids)
        await transaction.rollback()
        touched.append(seen.blocks)
    return touched[-1]


READ = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'workerd.ready'::regclass"


@pytest.mark.parametrize("state", [None, "queued", "running", "succeeded"])
async def test_a_page_reads_no_more_jobs_than_it_shows(db: DB, state: str | None) -> None:
    await db.execute("""
        INSERT INTO workerd.ready (lane, id, task, payload)
            SELECT workerd.lane_of('default', 0), nextval('workerd.job_id'), 'echo', '{}' FROM generate_series(1, 20000);
        INSERT INTO workerd.lease (node, n, lane, tickets, last) SELECT 1, 1, lane, int8multirange(int8range(pos, pos + 1)), pos
            FROM workerd.ready ORDER BY pos LIMIT 1
    """)
    await db.execute("ANALYZE")
    async with db.transaction():
        before = await db.fetchval(READ)
        assert len(await pages.page(db, pages.Wanted(state=state), 50)) == {"running": 1, "succeeded": 0}.get(
            state or "", 50
        )
        assert await db.fetchval(READ) - before <= 60
