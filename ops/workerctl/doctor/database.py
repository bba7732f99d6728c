"""The checks of a database, in order; each bounded, and a finding itself when it fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg

from workerctl.doctor import errors, fleet, pooler, schema, server, sessions
from workerctl.doctor.finding import Finding, failed, from_error, ok, warning
from workerctl.doctor.ground import PATIENCE, Ground
from workerd import embedded
from workerd.errors import DatabaseError
from workerd.locate import locate
from workerd.queue.database import CONNECTION_ERRORS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from workerd.settings import Settings

    Look = Callable[[Ground], Awaitable[list[Finding]]]

# Of the server, whatever it holds.
FIRST: Mapping[str, Look] = {"database": server.version, "synchronous_commit": server.commits}
SERVER: Mapping[str, Look] = {
    "fsync": server.durability,
    "writes": server.writes,
    "pooler": pooler.pooler,
    "notify": pooler.notify,
    "clock": server.clock,
    "connections": server.connections,
    "transactions": sessions.transactions,
    "prepared": sessions.prepared,
    "slots": sessions.slots,
    "wraparound": server.wraparound,
}
# Of the queue, whose schema has to be that of this program.
SCHEMA: Mapping[str, Look] = {"schema": schema.version}
QUEUE: Mapping[str, Look] = {
    "role": schema.role,
    "drift": schema.drift,
    "indexes": schema.indexes,
    "vacuum": sessions.vacuum,
    "nodes": fleet.nodes,
    "leader": fleet.leader,
    "queues": fleet.queues,
    "waiting": fleet.untaken,
    "quarantine": fleet.quarantined,
    "errors": errors.errors,
}


async def database(settings: Settings, *, thorough: bool) -> list[Finding]:
    """All that is found; a database that cannot be reached, or answers no more, is one finding and the last one."""
    if settings.database_url is None and not embedded.is_made(settings.state_dir):
        return [ok("database", "embedded, made at the first start")]
    found: list[Finding] = []
    try:
        ground = Ground(settings, await asyncio.to_thread(locate, settings))
        await ground.open()
    except (DatabaseError, *CONNECTION_ERRORS) as error:
        return [_away(error)]
    try:
        await _examine(ground, found, thorough=thorough)
    except (DatabaseError, *CONNECTION_ERRORS) as error:
        found.append(_away(error))
    finally:
        ground.close()
    return found


def _away(error: BaseException) -> Finding:
    """Why it cannot be asked."""
    said = from_error("database", error, "do as it says; the server's own log tells more")
    match error.__cause__:
        case asyncpg.TooManyConnectionsError():
            return replace(said, check="connections", advice=server.MORE_CONNECTIONS)
        case asyncpg.CannotConnectNowError():
            return replace(said, advice="wait until it has started or recovered: its log says how far it is")
        case asyncpg.TargetServerAttributeNotMatched():
            return replace(said, advice=server.PRIMARY)
    return said


async def _examine(ground: Ground, found: list[Finding], *, thorough: bool) -> None:
    for checks in (FIRST, SERVER if thorough else {"pooler": pooler.pooler}, SCHEMA):
        for name, look in checks.items():
            found += await _look(ground, name, look)
            if ground.server is None:  # nothing further can be asked
                return
    if thorough and found[-1].level == "ok":
        for name, look in QUEUE.items():
            found += await _look(ground, name, look)


async def _look(ground: Ground, name: str, look: Look) -> list[Finding]:
    """Raises DatabaseError when the database does not answer any more."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await look(ground)
    except (TimeoutError, asyncpg.QueryCanceledError):
        await ground.renew()
        return [
            warning(name, f"it could not be examined within {PATIENCE:g} s", "ask again when the database is less busy")
        ]
    except asyncpg.InsufficientPrivilegeError as error:
        if ground.lacks:
            return []  # which `role` tells
        return [warning(name, f"it could not be examined: {error}", "run this as a role that may read it")]
    except (DatabaseError, *CONNECTION_ERRORS) as error:
        await ground.renew()
        return [warning(name, f"it could not be examined: {error}", "ask again: the connection was lost meanwhile")]
    except Exception as error:  # noqa: BLE001 - one check that fails does not hide what the others find
        return [failed(name, error)]
