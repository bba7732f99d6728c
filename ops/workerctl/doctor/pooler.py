"""The pooler, and what does not go through one: notifications."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.doctor.finding import Finding, ok, problem
from workerctl.doctor.server import judge_notifications
from workerd.errors import DatabaseError
from workerd.queue import server
from workerd.queue.database import location

if TYPE_CHECKING:
    from workerctl.doctor.ground import Ground

LOST = 3.0  # seconds after which a notification is lost


async def pooler(ground: Ground) -> list[Finding]:
    if ground.pooler is not None:
        found, _, advice = ground.pooler.partition(": ")
        return [problem("pooler", found, advice)]
    if not ground.where.pooled:
        return [ok("pooler", "none")]
    url, direct = location(ground.where.url), location(ground.where.direct)
    try:
        pooled = await ground.pooled()
    except DatabaseError as error:
        ground.apart = True
        return [
            problem("pooler", f"DATABASE_URL: {error}", "jobs cannot use the database: see that the pooler runs there")
        ]
    try:
        same = await server.identity(pooled) == await server.identity(ground.connection)
    finally:
        pooled.terminate()
    ground.apart = not same
    if ground.apart:
        found = f"DATABASE_URL ({url}) and DATABASE_DIRECT_URL ({direct}) lead to two databases"
        return [problem("pooler", found, "let both lead to the one with the queue")]
    return [ok("pooler", f"{url}, past it {direct}")]


async def notify(ground: Ground) -> list[Finding]:
    """From a connection such as applications have to one that listens, as a daemon does."""
    assert ground.server is not None
    if ground.pooler is not None or ground.apart or ground.server.standby:
        return []  # it would be lost for that reason
    full = list(judge_notifications(await server.notification_queue(ground.connection)))
    if full:
        return full
    notifying = await ground.pooled()
    try:
        took = await server.notify_round_trip(ground.connection, notifying, LOST)
    finally:
        notifying.terminate()
    if took is None:
        found = f"a notification did not come within {LOST:g} s: jobs wait up to POLL_INTERVAL ({ground.settings.poll_interval:g} s)"
        return [
            problem(
                "notify", found, "let DATABASE_DIRECT_URL lead to the server that takes the writes, past any pooler"
            )
        ]
    return [ok("notify", f"{took * 1000:.1f} ms")]
