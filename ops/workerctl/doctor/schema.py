"""The schema: its version, whether it is as the migrations made it, and what the role may do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.doctor.finding import Finding, ok, problem, warning
from workerd.queue import definitions, migrate, reindex, rights

if TYPE_CHECKING:
    from workerctl.doctor.ground import Ground
    from workerd.queue.definitions import Drift

SHOWN = 5  # objects that are named
MIGRATE_AGAIN = (
    "restore it by hand as the migrations of this version have it, or `workerctl db backup` and `restore --replace`"
)


async def version(ground: Ground) -> list[Finding]:
    assert ground.server is not None
    if not await rights.may_use(ground.connection):
        return [problem("role", f"{ground.server.role} may not use the schema workerd", _grant(ground.server.role))]
    current, latest = await migrate.current(ground.connection), migrate.latest()
    if current > latest:
        found = f"it has version {current}, this program knows {latest}"
        return [problem("schema", found, "upgrade workerd on this host")]
    if not current:
        advice = "the first start of a daemon makes it, or `workerctl db upgrade` as its owner"
        return [warning("schema", "there is none yet", advice)]
    if current < migrate.BASELINE:
        advice = "let the program that made it finish its jobs, then DROP SCHEMA workerd CASCADE"
        return [problem("schema", f"it has version {current}, from before the first release", advice)]
    if todo := await migrate.pending(ground.connection):
        found = f"it has version {current}, this program needs {latest}: {', '.join(each.name for each in todo)}"
        return [problem("schema", found, "run `workerctl db upgrade` as its owner, or start a daemon, which does")]
    return [ok("schema", f"version {current}")]


async def drift(ground: Ground) -> list[Finding]:
    differs = await definitions.drift(ground.connection)
    findings = []
    broken = [each for each in differs if each.how != "added" and not each.is_tuning]
    if broken:
        advice = broken[0].remedy or MIGRATE_AGAIN
        findings.append(problem("drift", f"it is not as the migrations made it: {_named(broken)}", advice))
    tuned = [each for each in differs if each.is_tuning]
    if tuned:
        found = f"settings of tables are not those of the migrations: {', '.join(each.object for each in tuned)}"
        findings.append(warning("drift", found, f"unless you chose them: {tuned[0].remedy or 'reset them'}"))
    added = [each for each in differs if each.how == "added"]
    if added:
        found = f"its tables have what the migrations did not make: {_named(added)}"
        findings.append(warning("drift", found, "drop it, unless it is yours: it is kept up with each job"))
    return findings or [ok("drift", "as the migrations made it")]


async def indexes(ground: Ground) -> list[Finding]:
    invalid = await definitions.invalid_indexes(ground.connection)
    if invalid:
        found = f"{', '.join(invalid)} cannot be used, since what built it was interrupted"
        return [
            problem(
                "indexes",
                found,
                f"REINDEX INDEX CONCURRENTLY workerd.{invalid[0]}; one named _ccnew or _ccold: DROP it",
            )
        ]
    bloated = [each.name for each in await reindex.look(ground.connection) if each.bloated]
    if bloated:
        return [
            warning("indexes", f"{', '.join(bloated)}: far larger than its rows need", "run `workerctl db reindex`")
        ]
    return [ok("indexes", "valid, not bloated")]


async def role(ground: Ground) -> list[Finding]:
    found = ground.server
    assert found is not None
    if ground.pooler is not None:
        return []  # it is the pooler's
    lacked = await rights.lacked(ground.connection)
    if lacked:
        more = f" and {len(lacked) - SHOWN} more" if len(lacked) > SHOWN else ""
        text = f"{found.role} may not run daemons, it lacks {', '.join(lacked[:SHOWN])}{more}"
        ground.lacks = True
        return [problem("role", text, _grant(found.role))]
    if found.superuser and not ground.where.embedded:
        advice = "run `workerctl db roles`, and let daemons log in as a member of workerd_work"
        return [warning("role", f"{found.role} is a superuser, which no daemon needs to be", advice)]
    return [ok("role", found.role)]


def _grant(role: str) -> str:
    return f"run `workerctl db roles` as the owner, then GRANT workerd_work TO {role}"


def _named(differs: list[Drift]) -> str:
    told = [f"{each.object} {each.how}" if each.how != "added" else each.object for each in differs[:SHOWN]]
    return ", ".join(told) + (f" and {len(differs) - SHOWN} more" if len(differs) > SHOWN else "")
