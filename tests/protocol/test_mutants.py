"""Each lock, fence and order is needed: the schema with one of them taken out fails the tests of this directory."""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from tests.protocol import test_holes as holes
from tests.protocol import test_state_machine as machine
from tests.protocol.test_state_machine import broken, opened_world, replay
from workerd.queue.rescue import rescue

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from workerd.queue.lane import Lane
    from workerd.queue.rescue import Rescued

    DB = asyncpg.Connection[asyncpg.Record]

sessions = holes.sessions
lane = holes.lane


@dataclass(frozen=True)
class Mutant:
    """A function of the schema in which `old` is `new`, and where given something `also`, and a test that it fails."""

    name: str
    function: str
    old: str
    new: str
    scenario: Any = None
    arguments: dict[str, Any] = field(default_factory=dict)
    also: tuple[str, str] | None = None

    async def apply(self, db: DB) -> None:
        text = await db.fetchval("SELECT pg_get_functiondef(to_regproc($1))", f"workerd.{self.function}")
        for old, new in filter(None, ((self.old, self.new), self.also)):
            assert text.count(old) == 1, f"workerd.{self.function} reads otherwise now: {old}"
            text = text.replace(old, new)
        await db.execute(text)


NO_LOCK = "pg_advisory_xact_lock('workerd.lease'::regclass::oid::int, a_lane)", "a_lane"
TAKEN = "SELECT coalesce(range_agg(l.tickets), '{}') INTO taken FROM workerd.lease l WHERE l.lane = got.lane AND l.last >= low;"
ALIVE = "WHERE NOT EXISTS (SELECT FROM workerd.node d WHERE d.id = l.node AND d.dead_at IS NULL)"
IN_NO_LEASE = " WHERE NOT EXISTS (SELECT FROM workerd.lease e WHERE e.lane = spot.lane AND e.last >= spot.pos AND e.tickets @> spot.pos)"
LEASE_LOCK = "ORDER BY l.n FOR UPDATE", "ORDER BY l.n"
GOOD = "finish_succeeded"

ORDERS = [
    Mutant(
        "no lock between claims", "lock_lane", *NO_LOCK, holes.test_a_claim_that_waited_for_another_takes_nothing_of_it
    ),
    Mutant(
        "no lock between cancel and claim",
        "lock_lane",
        *NO_LOCK,
        holes.test_a_claim_during_a_cancel_does_not_take_the_job,
    ),
    Mutant(
        "leases read before the lock",
        "claim",
        TAKEN,
        f"{TAKEN} PERFORM workerd.lock_lane(got.lane);",
        holes.test_a_claim_that_waited_for_another_takes_nothing_of_it,
        also=("workerd.lock_lane(l.lane)", "NULL"),
    ),
    Mutant(
        "leases not looked at",
        "claim",
        "AND NOT r.pos <@ taken AND r.task = ANY (a_tasks) AND (",
        "AND r.task = ANY (a_tasks) AND (",
        holes.test_a_claim_during_a_finish_does_not_take_the_job_that_ends,
    ),
    Mutant(
        "claims see the past",
        "claim",
        "<> 'read committed'",
        "= ''",
        holes.test_a_claim_that_would_see_the_past_is_refused,
        {"level": "repeatable_read"},
    ),
    Mutant("dead nodes claim", "claim", " AND d.dead_at IS NULL", "", holes.test_a_dead_node_claims_nothing),
    Mutant(
        "no second look before the sleep",
        "claim",
        "got.asleep := true;",
        "got.asleep := true; EXIT;",
        holes.test_who_falls_asleep_looks_again_when_it_can_be_seen,
    ),
    Mutant(
        "nobody is woken",
        "wake",
        "pg_notify('workerd', 'ready') IS NOT NULL",
        "true",
        holes.test_an_enqueue_notifies_while_somebody_sleeps_on_its_lane,
    ),
    Mutant(
        "open transactions do not count",
        "claim",
        "pg_current_xact_id()",
        "pg_snapshot_xmax(pg_current_snapshot())",
        holes.test_a_claim_that_finds_nothing_counts_the_transactions_that_may_still_commit,
    ),
    Mutant(
        "large answers",
        "claim",
        "> 65536",
        "> 1000000000",
        holes.test_a_client_that_stops_reading_does_not_hold_up_its_lane,
        {"many": 500, "text": "random"},
    ),
    Mutant(
        "no ticket in the fence",
        "finish",
        " AND l.tickets @> d.pos",
        "",
        holes.test_a_ticket_outside_of_its_lease_is_no_fence,
    ),
    Mutant(
        "no ticket in the fence of successes",
        GOOD,
        " * held.tickets INTO kept",
        " INTO kept",
        holes.test_a_ticket_outside_of_its_lease_is_no_fence,
    ),
    Mutant(
        "no ticket in the fence of successes that are not kept",
        GOOD,
        " * held.tickets INTO plain",
        " INTO plain",
        holes.test_a_ticket_outside_of_its_lease_is_no_fence,
    ),
    Mutant(
        "no node in the fence",
        "finish",
        "JOIN workerd.lease l ON l.node = a_node AND ",
        "JOIN workerd.lease l ON ",
        holes.test_a_late_finish_does_not_end_the_next_run_of_its_job,
    ),
    Mutant(
        "no lock on the lease",
        "finish",
        *LEASE_LOCK,
        holes.test_the_last_two_jobs_of_a_lease_may_end_at_the_same_time,
        {"ending": "returned"},
    ),
    Mutant(
        "no lock on the lease of a success",
        GOOD,
        *LEASE_LOCK,
        holes.test_the_last_two_jobs_of_a_lease_may_end_at_the_same_time,
        {"ending": "succeeded"},
    ),
    Mutant(
        "no lock on the lease of a success that is not kept",
        GOOD,
        *LEASE_LOCK,
        holes.test_the_last_two_jobs_of_a_lease_may_end_at_the_same_time,
        {"ending": "succeeded, not kept"},
    ),
    Mutant(
        "an end forgets the cancel",
        "finish",
        "AND d.pos <@ l.cancel THEN",
        "AND false THEN",
        holes.test_a_cancel_that_commits_while_the_attempt_ends_is_not_forgotten,
        {"ending": "retry"},
    ),
    Mutant(
        "a cancel does not look at leases",
        "cancel",
        IN_NO_LEASE,
        "",
        holes.test_a_cancel_during_a_claim_finds_the_job_running,
    ),
    Mutant(
        "a split forgets the cancel",
        "split_lease",
        "held.cancel * alone",
        "'{}'",
        holes.test_a_cancel_moves_with_its_job_into_another_lease,
    ),
    Mutant(
        "a rescue forgets the cancel",
        "take_back",
        "array(SELECT workerd.positions(workerd.set_of(a_pos) * a_held.cancel))",
        "'{}'",
        holes.test_a_cancel_that_commits_during_a_rescue_is_not_forgotten,
    ),
]

CLAIM = ("claim", {"which": 0, "batch": 4, "free": True, "heard": True, "seconds": 2.0, "rest": False})
CRASH = ("rescue", {"which": 0, "dies": True, "heard": True})
CANCEL = ("cancel", {"which": 0, "among": ("ready",)})
GIVE_BACK = ("give_back", {"which": 0, "first": 0, "whole": True, "heard": True})
KEYED = [("enqueue", {"lane": lane, "key": key, "later": False}) for lane, key in enumerate("ab")]
FAIL = ("finish", {"which": 0, "first": 0, "many": 1, "endings": ["failed"] * 3})
SUCCEED = ("finish", {"which": 0, "first": 0, "many": 3, "endings": ["succeeded"] * 3})

# What the model of the state machine notices, with the shortest history that shows it: random ones find it with luck only.
HISTORIES = [
    (
        Mutant("rescue takes from the living", "rescue", ALIVE, "WHERE true"),
        [CLAIM, ("rescue", CRASH[1] | {"dies": False})],
    ),
    (
        Mutant("rescue spares the dead that are known", "rescue", ALIVE, ALIVE.replace(" AND d.dead_at IS NULL", "")),
        [CLAIM, CRASH],
    ),
    (
        Mutant("rescue spares what crashed too often", "take_back", "r.crashes + 1 >= a_max_crashes", "false"),
        [CLAIM, CRASH, CLAIM, CRASH],
    ),
    (Mutant("a failure is told of to nobody", "finish", "PERFORM workerd.notice(", "PERFORM ("), [CLAIM, FAIL]),
    (
        Mutant("a failure by crashes is told of to nobody", "take_back", "PERFORM workerd.notice(", "PERFORM ("),
        [CLAIM, CRASH, CLAIM, CRASH],
    ),
    (
        Mutant("dead nodes claim", "claim", " AND d.dead_at IS NULL", ""),
        [("die", {"which": 0}), ("claim_after_death", {"which": 0})],
    ),
    (
        Mutant(
            "given back though cancelled", "give_back", "array(SELECT workerd.positions(back * held.cancel))", "'{}'"
        ),
        [CLAIM, CANCEL, GIVE_BACK],
    ),
    (
        Mutant("a key outlives its job", "keep_succeeded", "g.key IS NOT NULL AND", "false AND"),
        [*KEYED, CLAIM, SUCCEED],
    ),
]


FAILURES = (
    AssertionError,
    asyncpg.RaiseError,
    asyncpg.IntegrityConstraintViolationError,
    TimeoutError,
    pytest.fail.Exception,
)


@pytest.fixture
def loose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a lock was taken out a call does not wait for it, but ends."""
    wait = holes.until_waiting

    async def until_waiting(db: DB, session: DB, call: asyncio.Task[Any]) -> None:
        with contextlib.suppress(AssertionError):
            await wait(db, session, call)

    monkeypatch.setattr(holes, "until_waiting", until_waiting)


@pytest.mark.parametrize("mutant", ORDERS, ids=lambda m: m.name)
async def test_the_order_that_matters_goes_wrong_with(
    mutant: Mutant, db: DB, sessions: list[DB], lane: Lane, loose: None
) -> None:
    fixtures = {"db": db, "sessions": sessions, "lane": lane, **mutant.arguments}

    async def play() -> None:
        wanted = inspect.signature(mutant.scenario).parameters
        await mutant.scenario(**{name: fixtures[name] for name in wanted})
        assert await broken(db) == []

    await mutant.apply(db)
    with pytest.raises(FAILURES):
        await play()


@pytest.mark.parametrize(("mutant", "history"), HISTORIES, ids=lambda each: getattr(each, "name", ""))
def test_the_model_disagrees_with(
    mutant: Mutant, history: list[tuple[str, dict[str, Any]]], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_world(dsn, monkeypatch) as world:
        replay(world, history)  # it agrees with the schema as it is
        world.run(mutant.apply(world.observer))
        with pytest.raises(FAILURES):
            replay(world, history)


def never_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node does not compare what it holds with what the database says."""

    async def settle(*_: Any) -> None:
        pass

    monkeypatch.setattr(machine.Machine, "_settle", settle)


def rescue_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A death is an event: what its node holds is taken back by the next rescue, and by none after that."""
    handled = set[int]()

    async def once(db: DB, max_crashes: int, ttl: float) -> list[Rescued]:
        dead = {row["id"] for row in await db.fetch("SELECT id FROM workerd.node WHERE dead_at IS NOT NULL")}
        news = dead - handled
        handled.update(dead)
        return await rescue(db, max_crashes, ttl) if news else []

    monkeypatch.setattr(machine, "rescue", once)


@pytest.mark.parametrize(
    ("habit", "history"),
    [
        (never_settle, [("claim", CLAIM[1] | {"heard": False})]),
        (rescue_once, [("claim_and_commit_late", {"which": 0, "dies": True, "heard": False})]),
    ],
    ids=["nothing reconciled", "deaths as events"],
)
def test_not_everything_ends_with(
    habit: Callable[[pytest.MonkeyPatch], None],
    history: list[tuple[str, dict[str, Any]]],
    dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with opened_world(dsn, monkeypatch) as world:
        replay(world, history)
        habit(monkeypatch)
        with pytest.raises(AssertionError):
            replay(world, history)
