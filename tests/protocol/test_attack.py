"""A fleet under attack: sessions are cut, nodes die or are thought dead, transactions commit late; and each job ends once.

The attack is as long as it takes until enough has happened, on whatever machine.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.conftest import fresh_database
from tests.protocol.attack import Attack
from tests.protocol.test_mutants import GOOD, LEASE_LOCK, NO_LOCK, Mutant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ENOUGH = {
    "claimed": 1500,
    "ended": 1000,
    "rescued": 100,
    "reconciled": 5,
    "stale ends dropped": 20,
    "repeated": 10,
    "answers lost": 10,
    "killed": 30,
    "died": 5,
    "declared dead while alive": 10,
    "told that it is dead": 5,
    "late commits": 2,
    "cancel: running": 2,
    "cancel: queued": 10,
}
LONG = 10  # times as many
LIMIT = 1800.0  # seconds until a mutant is noticed: a hundredth is plenty


async def test_each_job_ends_once_whatever_fails(dsn: str) -> None:
    assert await Attack(dsn).run(ENOUGH) == []


@pytest.mark.long
async def test_each_job_ends_once_however_long_everything_fails(dsn: str) -> None:
    assert await Attack(dsn).run({what: LONG * times for what, times in ENOUGH.items()}) == []


async def notice(server: str, template: str, attack: Callable[[str], Awaitable[list[str]]]) -> list[str]:
    """What was wrong in the first of the attacks, each on a database of its own, that succeeded. There has to be one."""
    async with asyncio.timeout(LIMIT):
        while True:
            async with asynccontextmanager(fresh_database)(server, template) as dsn:
                if wrong := await attack(dsn):
                    return wrong


@pytest.mark.long
@pytest.mark.parametrize(
    "mutant",
    [
        Mutant("no lock between claims", "lock_lane", *NO_LOCK),
        Mutant("no ticket in the fence", GOOD, " * held.tickets INTO plain", " INTO plain"),
        Mutant("no lock on the lease", GOOD, *LEASE_LOCK),
    ],
    ids=lambda m: m.name,
)
async def test_the_attack_succeeds_with(mutant: Mutant, server: str, template: str) -> None:
    """Sooner or later: it goes on until it does. What it has to hit by chance test_mutants.py has in the one order that matters."""

    async def attack(dsn: str) -> list[str]:
        db = await asyncpg.connect(dsn)
        await mutant.apply(db)
        await db.close()
        return await Attack(dsn).run(ENOUGH)

    assert await notice(server, template, attack)


@pytest.mark.long
@pytest.mark.parametrize(
    ("reconciles", "by_event"), [(False, False), (True, True)], ids=["nothing reconciled", "deaths as events"]
)
async def test_the_fleet_does_not_come_to_rest_with(
    reconciles: bool, by_event: bool, server: str, template: str
) -> None:
    """Sooner or later: see above."""

    async def attack(dsn: str) -> list[str]:
        return await Attack(dsn, reconciles, by_event).run(enough)

    happens = {"reconciled"} if not reconciles else {"rescued"} if by_event else set()
    enough = {what: times for what, times in ENOUGH.items() if what not in happens}
    wrong = await notice(server, template, attack)
    assert any(each.startswith("ready, scheduled and leased in the end") for each in wrong)
