"""What each page shows: from its address to the values of its template."""

from __future__ import annotations

import re
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from workerctl.manager.page import charts, render
from workerd.errors import NotFound
from workerd.queue import fleet, inspect, job_log, pages, progress, schedules
from workerd.queue.inspect import STATES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workerd.job import AnyConnection
    from workerd.queue.client import Queue

JOBS = 50  # of one page
FAILURES = 8  # on the overview
AHEAD = 3  # times of a schedule
TELL = 2.0  # seconds between two words to the nodes that somebody looks
FILTERS = ("state", "queue", "task", "node", "key")


@dataclass(frozen=True)
class View:
    """`template` renders what `load` answers; `progress`: it shows how far jobs are."""

    template: str
    load: Callable[[AnyConnection, dict[str, str], bool], Awaitable[dict[str, Any]]]
    progress: bool = False


async def _overview(connection: AnyConnection, query: dict[str, str], _sees: bool) -> dict[str, Any]:
    queues = await inspect.queues(connection)
    nodes = await inspect.nodes(connection)
    tasks = await inspect.tasks(connection, 1.0)
    failed = await pages.page(connection, pages.Wanted(state="failed"), FAILURES)
    living = [node for node in nodes if node["state"] != "dead"]
    figures = {
        "queued": sum(each["queued"] for each in queues),
        "running": sum(each["running"] for each in queues),
        "scheduled": sum(each["scheduled"] for each in queues),
        "blocked": sum(each["blocked"] for each in queues),
        "oldest": max(
            (each["oldest_queued_s"] for each in queues if each["oldest_queued_s"] is not None), default=None
        ),
        "nodes": len(living),
        "workers": sum(node["workers"] for node in living),
        "busy": sum(node["busy"] for node in living),
        "ended": sum(task["succeeded"] + task["failed"] for task in tasks),
        "failed": sum(task["failed"] for task in tasks),
    }
    over = charts.RANGES.get(query.get("range", ""), charts.RANGES["10m"])
    drawn = await charts.load(connection, over)
    return {
        "figures": figures,
        "queues": queues,
        "tasks": tasks,
        "failed": failed,
        "charts": drawn,
        "over": over,
        "ranges": charts.RANGES,
    }


async def _jobs(connection: AnyConnection, query: dict[str, str], _sees: bool) -> dict[str, Any]:
    wanted: dict[str, Any] = {name: query[name] for name in FILTERS if query.get(name)}
    if wanted.get("state") not in STATES:
        wanted.pop("state", None)
    cursor = query.get("cursor", "")
    before = int(cursor) if cursor.isdecimal() and len(cursor) < 19 else None
    search = query.get("id", "")
    if search.isdecimal() and len(search) < 19:
        before = int(search) + 1
    found = await pages.page(connection, pages.Wanted(**wanted, before=before), JOBS + 1)
    if search:
        found = [job for job in found if str(job["id"]) == search]
    older = urlencode({**wanted, "cursor": found[JOBS - 1]["id"]}) if len(found) > JOBS else None
    return {"jobs": found[:JOBS], "wanted": wanted, "older": older, "newer": urlencode(wanted) if before else None}


async def _job(connection: AnyConnection, query: dict[str, str], sees: bool) -> dict[str, Any]:
    job_id = int(query["id"])
    found = await inspect.job(connection, job_id)
    if found is None:
        raise NotFound(f"there is no job {job_id}: it was never enqueued, or is not kept any more")
    hidden = not sees and await inspect.is_sensitive(connection, found["task"])
    lines: dict[int, list[dict[str, Any]]] = {}
    for line in await job_log.lines_of(connection, job_id):
        lines.setdefault(line["attempt"], []).append(line)
    return {"job": found, "hidden": hidden, "lines": lines}


async def _queues(connection: AnyConnection, _query: dict[str, str], _sees: bool) -> dict[str, Any]:
    return {"queues": await inspect.queues(connection)}


async def _purge(connection: AnyConnection, query: dict[str, str], _sees: bool) -> dict[str, Any]:
    for each in await inspect.queues(connection):
        if each["queue"] == query["name"]:
            return {"queue": each, "count": each["queued"] + each["scheduled"] + each["blocked"]}
    raise NotFound(f"there is no queue {query['name']}")


async def _nodes(connection: AnyConnection, _query: dict[str, str], _sees: bool) -> dict[str, Any]:
    return {"nodes": await inspect.nodes(connection)}


async def _node(connection: AnyConnection, query: dict[str, str], _sees: bool) -> dict[str, Any]:
    known = await fleet.living(connection, query["name"])
    node = next(each for each in await inspect.nodes(connection) if each["id"] == str(known.id))
    return {"node": node, "jobs": await pages.page(connection, pages.Wanted(state="running", node=known.name), JOBS)}


async def _schedules(connection: AnyConnection, _query: dict[str, str], _sees: bool) -> dict[str, Any]:
    return {"schedules": await schedules.find(connection, AHEAD)}


_VIEWS = {
    r"/": View("overview", _overview),
    r"/jobs": View("jobs", _jobs, progress=True),
    r"/jobs/(?P<id>\d{1,18})": View("job", _job, progress=True),
    r"/queues": View("queues", _queues),
    r"/queues/(?P<name>.+)/purge": View("purge", _purge),
    r"/nodes": View("nodes", _nodes),
    r"/nodes/(?P<name>.+)": View("node", _node, progress=True),
    r"/schedules": View("schedules", _schedules),
}


class Looks:
    """Renders the changing parts of views for those who follow them."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._told_at = -TELL  # that somebody looks

    async def __call__(self, address: str, sees: bool) -> str:
        """The changing part of the view at an address; nodes are told that somebody looks at how far jobs are."""
        view, query = resolve(address)
        async with self._queue.connection() as connection:
            if view.progress and monotonic() - self._told_at >= TELL:
                self._told_at = monotonic()
                await progress.watched(connection)
            return render.live(view.template, **await view.load(connection, query, sees))


def resolve(address: str) -> tuple[View, dict[str, str]]:
    """The view at an address (path and query, as a browser has them), and what the address says. Raises NotFound."""
    parts = urlsplit(address)
    path = unquote(parts.path)
    for pattern, view in _VIEWS.items():
        match = re.fullmatch(pattern, path)
        if match is not None:
            query = {name: value.replace("\0", "") for name, value in parse_qsl(parts.query)}
            return view, query | match.groupdict()
    raise NotFound("there is no such page")
