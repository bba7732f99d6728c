"""What others do on the server that hinders a queue: old transactions, prepared ones, slots, a vacuum that does not come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.doctor.finding import Finding, ok, problem, warning
from workerd.queue import condition, server

if TYPE_CHECKING:
    from workerctl.doctor.ground import Ground

OLD = 300.0  # seconds for which a transaction may be open
DEAD = 100_000  # dead rows of a table that are many when the table has fewer live ones than five times that
SHOWN = 3


async def transactions(ground: Ground) -> list[Finding]:
    assert ground.server is not None
    old = await server.transactions(ground.connection, OLD)
    if not old:
        hidden = "" if ground.server.sees_all else " of our own (GRANT pg_read_all_stats to see all)"
        return [ok("transactions", f"none{hidden} is older than {OLD / 60:.0f} min")]
    told = [f"{each.who} (PID {each.pid}, {each.state}) for {age(each.seconds)}" for each in old[:SHOWN]]
    more = f" and {len(old) - SHOWN} more" if len(old) > SHOWN else ""
    found = f"open: {', '.join(told)}{more}; dead rows stay until they end"
    return [warning("transactions", found, f"end it in its application, or SELECT pg_terminate_backend({old[0].pid})")]


async def prepared(ground: Ground) -> list[Finding]:
    old = await server.prepared(ground.connection, OLD)
    if not old:
        return [ok("prepared", "none is old")]
    found = f"the prepared transaction {old[0].gid!r} of {old[0].owner} is {age(old[0].seconds)} old: it holds locks and dead rows"
    return [warning("prepared", found, f"COMMIT PREPARED or ROLLBACK PREPARED '{old[0].gid}', as its application says")]


async def slots(ground: Ground) -> list[Finding]:
    findings = []
    for slot in await server.unread_slots(ground.connection):
        kept = "" if slot.kept is None else f" and keeps {slot.kept / 2**20:,.0f} MB of WAL"
        found = (
            f"nobody reads the slot {slot.name}: it holds dead rows{kept}"
            if slot.holds_rows
            else f"nobody reads the slot {slot.name}: it{kept.removeprefix(' and') or ' keeps WAL'}"
        )
        advice = f"start its standby or reader, or SELECT pg_drop_replication_slot('{slot.name}'): else the disk fills"
        findings.append(warning("slots", found, advice))
    return findings or [ok("slots", "all are read")]


async def vacuum(ground: Ground) -> list[Finding]:
    found = ground.server
    assert found is not None
    rows = await condition.rows(ground.connection)
    for setting, on in (("autovacuum", found.autovacuum), ("track_counts", found.track_counts)):
        if not on:
            told = f"{setting} is off: tables grow with each job"
            return [problem("vacuum", told, f"ALTER SYSTEM SET {setting} = on; SELECT pg_reload_conf()")]
    off = [each.table for each in rows if not each.vacuumed]
    if off:
        told = f"autovacuum is off for {', '.join(off)}: it grows with each job"
        return [problem("vacuum", told, f"ALTER TABLE workerd.{off[0]} RESET (autovacuum_enabled)")]
    return [judge_rows(rows)]


def judge_rows(rows: list[condition.Rows]) -> Finding:
    """By the rows that the tables hold."""
    most = max(rows, key=lambda each: each.dead)
    if most.dead > DEAD and most.dead > most.live / 5:
        found = f"{most.table} has {most.dead:,} dead rows beside {most.live:,} live ones"
        advice = f"end what holds them (transactions, prepared, slots); VACUUM workerd.{most.table} if nothing does"
        return warning("vacuum", found, advice)
    return ok("vacuum", f"{sum(each.dead for each in rows):,} dead rows")


def age(seconds: float) -> str:
    """For people."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
