"""The fleet: do nodes live, does one lead, and is there one for each job?"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from workerctl.doctor.finding import Finding, counted, ok, problem, warning
from workerctl.doctor.sessions import age
from workerd.queue import inspect, quarantine, waiting

if TYPE_CHECKING:
    from typing import Any

    from workerctl.doctor.ground import Ground
    from workerd.queue.waiting import Untaken

RECENT = 3600.0  # seconds for which the death of a node is news
OVERDUE = 60.0  # seconds by which a schedule is late
ELECTION = 1.5  # seconds within which another node leads
SHOWN = 5


async def nodes(ground: Ground) -> list[Finding]:
    from workerd import __version__

    seen = await inspect.nodes(ground.connection)
    beating = await waiting.beating(ground.connection)
    living = [each for each in seen if each["id"] in beating]
    findings = []
    if not living:
        findings.append(
            _nobody(await inspect.queues(ground.connection), await waiting.overdue(ground.connection, OVERDUE))
        )
    died = Counter(each["name"] for each in seen if each["state"] == "dead" and each["heartbeat_age_s"] < RECENT)
    for name, times in died.items():
        back = any(each["name"] == name for each in living)
        often = "once" if times == 1 else f"{times} times"
        found = f"{name} died {often} within the last hour and is {'back' if back else 'not back'}"
        advice = f"see why: `workerctl logs --errors` on its host, its journal for OOM kills; then `workerctl nodes forget {name}`"
        findings.append(warning("nodes", found, advice))
    other = sorted({f"{each['name']} {each['version']}" for each in living if each["version"] != __version__})
    if other:
        found = f"nodes run other versions than this program, {__version__}: {', '.join(other[:SHOWN])}"
        findings.append(warning("nodes", found, "bring all to one version, then `workerctl reload` on each host"))
    return findings or [ok("nodes", f"{len(living)} alive")]


async def leader(ground: Ground) -> list[Finding]:
    """It queues what is due, and the jobs of dead nodes. Its lock is the primary's."""
    assert ground.server is not None
    if ground.server.standby or not await _any_living(ground):
        return []
    for _ in range(2):
        if await waiting.is_led(ground.connection):
            late = await waiting.overdue(ground.connection, OVERDUE)
            return [_late(late)] if late else [ok("leader", "there is one")]
        await asyncio.sleep(ELECTION)
    found = "no node leads: delayed jobs, retries and schedules are not queued, jobs of dead nodes not taken back"
    return [
        problem(
            "leader",
            found,
            "was the last daemon killed? `workerctl start`; else see what maintenance says: `workerctl logs --errors`; "
            "nodes that work by HTTP need a manager",
        )
    ]


async def queues(ground: Ground) -> list[Finding]:
    paused = [each for each in await inspect.queues(ground.connection) if each["paused"] and each["queued"]]
    return [
        warning(
            "queues",
            f"{each['queue']} is paused with {counted(each['queued'], 'job')} in it",
            f"run `workerctl queues resume {each['queue']}`",
        )
        for each in paused
    ] or [ok("queues", "none is paused with jobs in it")]


async def untaken(ground: Ground) -> list[Finding]:
    if not await _any_living(ground):
        return []  # which `nodes` tells
    found = await waiting.untaken(ground.connection)
    return [_untaken(each) for each in found[:SHOWN]] or [ok("waiting", "each job has a node that takes it")]


async def quarantined(ground: Ground) -> list[Finding]:
    """Jobs that were failed for what their rows or ends held."""
    found = await quarantine.recent(ground.connection)
    if not found:
        return [ok("quarantine", "no job within the last day")]
    newest = found[0]
    told = f"{counted(len(found), 'job')} failed within the last day for what could not be processed"
    told = f"{told}, such as {newest.id} ({newest.task}): {newest.reason.splitlines()[0]}"
    advice = f"run `workerctl jobs show {newest.id}`, mend what enqueues or returns it, then `workerctl jobs retry`"
    return [warning("quarantine", told, advice)]


def _untaken(each: Untaken) -> Finding:
    what = f"nobody takes {counted(each.jobs, 'job')} of {each.task} in the queue {each.queue}"
    if each.node is not None and not each.node_lives:
        return warning(
            "waiting",
            f"{what}: pinned to {each.node}, which does not live",
            f"start {each.node}, or cancel them: `workerctl jobs cancel`",
        )
    if not each.known:
        advice = f"start a daemon whose TASKS declare {each.task}, or cancel them: `workerctl jobs cancel --task {each.task}`"
        return warning("waiting", f"{what}: no living node knows this task", advice)
    advice = f"add {each.queue} to QUEUES of a node that runs {each.task}"
    return warning("waiting", f"{what}: no living node with this task serves this queue", advice)


def _nobody(queues: list[dict[str, Any]], late: list[tuple[str, float]]) -> Finding:
    waits = sum(each["queued"] + each["running"] + each["scheduled"] + each["blocked"] for each in queues)
    advice = "start one: `workerctl start`, `systemctl start invoice-worker` or `docker compose up -d`"
    if waits or late:
        what = counted(waits, "unfinished job") if waits else f"the schedule {late[0][0]}, due for {age(late[0][1])}"
        return problem("nodes", f"no node lives, which holds up {what}", advice)
    return warning("nodes", "no node lives", advice)


def _late(late: list[tuple[str, float]]) -> Finding:
    name, seconds = late[0]
    found = f"{name} was due {age(seconds)} ago{f', and {len(late) - 1} more are late' if len(late) > 1 else ''}"
    return problem(
        "schedules",
        found,
        "see what the leader says of it: `workerctl logs --errors`; set it anew: `workerctl schedules set`",
    )


async def _any_living(ground: Ground) -> bool:
    return bool(await waiting.beating(ground.connection))
