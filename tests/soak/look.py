"""What a daemon has in use, seen from outside, and what of it must not grow from one successor to the next."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import asyncpg

from tests.faults.balance import Books
from tests.support import until
from workerctl import control

if TYPE_CHECKING:
    from workerd.settings import Settings

LOOKS = 20
PAUSE = 0.1  # seconds between two of them
GROWTH = 2_000_000  # bytes of RSS that one look may differ from another
IDLE_THREADS = 3  # kept for a minute, for whoever needs one next
BASE = (
    3  # the successor that others are compared with: what is made once, such as caches of the system, is there by then
)

_IDLE = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'worker % pool')"
_END_IDLE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'worker % pool' AND state = 'idle'"
_SESSIONS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'worker %' AND application_name <> 'worker client'
"""


@dataclass(frozen=True)
class Look:
    """The least of several looks, for what a beat or a question uses comes and goes: bytes, and counts."""

    rss: int
    files: int
    threads: int
    tasks: int
    connections: int


async def calm(settings: Settings, limit: float, *, at_once: bool = False) -> None:
    """Returns when the daemon in charge is alone, and neither jobs nor connections that nobody needs are left.

    `at_once`: these are ended rather than waited for.
    """

    async def alone() -> bool:
        told = await asyncio.to_thread(control.ask, settings.socket_path, "status")
        return bool(told["predecessors"] == 0)

    db = await asyncpg.connect(settings.database_url)
    await Books(db).settled(limit)
    if at_once:
        await db.execute(_END_IDLE)
    await until(lambda: db.fetchval(_IDLE), "connections that nobody needs are closed")
    await db.close()
    await until(alone, "the predecessor has gone")


async def look(settings: Settings) -> Look:
    """Look at the daemon in charge, which is calm."""
    db = await asyncpg.connect(settings.database_url)
    seen = []
    for _ in range(LOOKS):
        told = await asyncio.to_thread(control.ask, settings.socket_path, "status")
        seen.append(
            (
                told["rss_bytes"],
                told["open_files"],
                told["threads"],
                told["asyncio_tasks"],
                await db.fetchval(_SESSIONS),
            )
        )
        await asyncio.sleep(PAUSE)
    await db.close()
    return Look(*map(min, zip(*seen, strict=True)))


def differences(base: Look, other: Look) -> list[str]:
    """How a look differs from an earlier one, as it must not."""
    found = []
    if abs(other.rss - base.rss) > GROWTH:
        found.append(f"{other.rss / 1e6:.1f} MB, not {base.rss / 1e6:.1f}")
    for field in fields(Look)[1:]:
        is_now, was = getattr(other, field.name), getattr(base, field.name)
        if abs(is_now - was) > (IDLE_THREADS if field.name == "threads" else 0):
            found.append(f"{is_now} {field.name}, not {was}")
    return found


def leaks(successors: list[Look]) -> list[str]:
    """How successors after the third differ from it."""
    found = []
    for number, each in enumerate(successors[BASE:], BASE + 1):
        found += [f"successor {number} has {what}" for what in differences(successors[BASE - 1], each)]
    return found
