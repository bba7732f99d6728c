"""The server: its version and settings, and whether it takes writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.doctor.finding import Finding, ok, problem, warning
from workerd.queue import migrate, server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workerctl.doctor.ground import Ground

OLDEST = 150000
XIDS_MANY, XIDS_TOO_MANY = 1_000_000_000, 1_600_000_000  # of the 2,147 million at which the server stops
PRIMARY = "give the address of the primary in DATABASE_URL, or of all servers: postgresql://one,two/app"
MORE_CONNECTIONS = "raise the limit, lower DATABASE_POOL_SIZE, or put a pooler before DATABASE_URL"
CLOCK = 1.0  # seconds by which clocks may differ


async def version(ground: Ground) -> list[Finding]:
    found = ground.server = await server.settings(ground.connection)
    if found.version < OLDEST:
        return [
            problem("database", f"PostgreSQL {found.version // 10000} is too old", "upgrade the server to 15 or newer")
        ]
    encoding = ground.connection.get_settings().server_encoding
    if encoding not in migrate.ENCODINGS:
        said = f"the encoding of the database is {encoding}, which lacks characters that jobs may carry"
        return [problem("database", said, migrate.UTF8)]
    return [ok("database", f"PostgreSQL {found.release}")]


async def commits(ground: Ground) -> list[Finding]:
    assert ground.server is not None
    if ground.server.synchronous_commit == "off":
        found = "it is off: a crash of the server loses jobs that were enqueued"
        return [problem("synchronous_commit", found, f"ALTER ROLE {ground.server.role} SET synchronous_commit = on")]
    return [ok("synchronous_commit", ground.server.synchronous_commit)]


async def durability(ground: Ground) -> list[Finding]:
    found = ground.server
    assert found is not None
    if not found.fsync:
        return [
            problem(
                "fsync",
                "it is off: a crash of the host destroys the database",
                "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()",
            )
        ]
    if not found.full_page_writes:
        advice = "turn it on, unless the file system writes whole pages: ALTER SYSTEM SET full_page_writes = on"
        return [warning("fsync", "full_page_writes is off: a crash of the host may destroy the database", advice)]
    return [ok("fsync", "on")]


async def writes(ground: Ground) -> list[Finding]:
    found = ground.server
    assert found is not None
    if found.standby:
        return [problem("writes", "the server is a standby: it takes no writes", PRIMARY)]
    if found.read_only:
        advice = f"ALTER ROLE {found.role} RESET default_transaction_read_only; or for the database, or the server"
        return [problem("writes", "default_transaction_read_only is on: nothing can be written", advice)]
    return [ok("writes", "taken")]


async def clock(ground: Ground) -> list[Finding]:
    """Of the host that this runs on."""
    import time

    before = time.time()
    theirs = await server.clock(ground.connection)
    after = time.time()
    return [judge_clock((before + after) / 2 - theirs, (after - before) / 2)]


def judge_clock(ahead: float, uncertain: float) -> Finding:
    """By the seconds that this host is ahead of the database, and those that this may be wrong by."""
    if abs(ahead) - uncertain > CLOCK:
        found = f"this host is {abs(ahead):,.1f} s {'ahead of' if ahead > 0 else 'behind'} the database"
        return warning(
            "clock", f"{found}: the times in its logs are wrong", "keep the clocks of both with NTP: timedatectl"
        )
    return ok("clock", f"{abs(ahead) * 1000:,.0f} ms {'ahead of' if ahead > 0 else 'behind'} the database")


async def wraparound(ground: Ground) -> list[Finding]:
    return [judge_age(await server.xid_age(ground.connection))]


def judge_age(age: int) -> Finding:
    """By the transactions since the oldest rows were frozen."""
    found = f"rows of {age / 1e6:,.0f} million transactions are not frozen: at 2,147 million the server takes no more writes"
    advice = "end what holds old rows (transactions, prepared, slots), then VACUUM (FREEZE) in this database"
    if age > XIDS_TOO_MANY:
        return problem("wraparound", found, advice)
    if age > XIDS_MANY:
        return warning("wraparound", found, advice)
    return ok("wraparound", f"{age / 1e6:,.1f} of 2,147 million transactions")


async def connections(ground: Ground) -> list[Finding]:
    """A daemon of these settings opens its pool when its jobs need it, and five more."""
    seen = await server.headroom(ground.connection)
    return [judge_headroom(seen, ground.settings.database_pool_size + ground.settings.database_max_overflow + 5)]


def judge_headroom(seen: server.Headroom, needed: int) -> Finding:
    """By the limit that is the next to be met, and the connections that a daemon opens at most."""
    free = max(0, seen.most - seen.used)
    if free < needed:
        found = f"{seen.used} of {seen.most} are in use ({seen.limit}); a daemon opens up to {needed}"
        return warning("connections", found, MORE_CONNECTIONS)
    return ok("connections", f"{seen.used} of {seen.most} in use")


def judge_notifications(share: float) -> Iterator[Finding]:
    """By the share of the server's queue of notifications that is in use."""
    if share > 0.5:
        found = f"the server's queue of notifications is {share:.0%} full: when it is full, enqueues fail"
        yield problem("notify", found, "end the session that listens within an open transaction: see `transactions`")
