"""A fleet under attack: sessions are cut, nodes die or are thought dead, transactions commit late; and each job ends once.

WORKERD_ATTACK_SECONDS makes it longer.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.protocol.attack import Attack
from tests.protocol.test_mutants import GOOD, LEASE_LOCK, NO_LOCK, Mutant

if TYPE_CHECKING:
    import asyncpg

    DB = asyncpg.Connection[asyncpg.Record]

SECONDS = float(os.environ.get("WORKERD_ATTACK_SECONDS", "15"))
MUTANT_SECONDS = 4.0
HAPPENS = (
    "claimed", "ended", "rescued", "reconciled", "stale ends dropped", "repeated", "answers lost", "killed", "died",
    "declared dead while alive", "told that it is dead", "late commits", "cancel: running", "cancel: queued",
)  # fmt: skip


async def test_each_job_ends_once_whatever_fails(dsn: str) -> None:
    attack = Attack(dsn)
    assert await attack.run(SECONDS) == []
    assert [what for what in HAPPENS if not attack.counts[what]] == [], "that was no attack"
    assert attack.counts["ended"] > 100 * SECONDS
    print(dict(attack.counts))


@pytest.mark.parametrize(
    "mutant",
    [
        Mutant("no lock between claims", "lock_lane", *NO_LOCK),
        Mutant("no ticket in the fence", GOOD, " * held.tickets INTO plain", " INTO plain"),
        Mutant("no lock on the lease", GOOD, *LEASE_LOCK),
    ],
    ids=lambda m: m.name,
)
async def test_the_attack_succeeds_with(mutant: Mutant, dsn: str, db: DB) -> None:
    await mutant.apply(db)
    assert await Attack(dsn, settle_limit=3.0).run(MUTANT_SECONDS)


@pytest.mark.parametrize(
    ("reconciles", "by_event", "seconds"),
    [(False, False, MUTANT_SECONDS), (True, True, 2 * MUTANT_SECONDS)],
    ids=["nothing reconciled", "deaths as events"],
)
async def test_the_fleet_does_not_come_to_rest_with(reconciles: bool, by_event: bool, seconds: float, dsn: str) -> None:
    wrong = await Attack(dsn, reconciles, by_event, settle_limit=3.0).run(seconds)
    assert any(each.startswith("ready, scheduled and leased in the end") for each in wrong)
