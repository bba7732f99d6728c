"""Pages of jobs, the newest first: each is found by the id at which the one before ended, in the tables of its states alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workerd.queue.inspect import STATES

if TYPE_CHECKING:
    from datetime import datetime

    from workerd.job import AnyConnection

COLUMNS = (
    "id",
    "task",
    "queue",
    "state",
    "priority",
    "attempt",
    "max_retries",
    "progress",
    "message",
    "key",
    "enqueued_at",
    "run_at",
    "started_at",
    "finished_at",
    "node",
    "error",
)
_TIMES = ("enqueued_at", "run_at", "started_at", "finished_at")
_VIEWS = {
    "job_running": {"running"},
    "job_queued": {"queued"},
    "job_waiting": {"scheduled", "blocked", "queued"},
    "job_ended": {"succeeded", "failed", "cancelled"},
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs: every given condition holds. `since`: enqueued then or later; `before`: with a smaller id."""

    state: str | None = None
    queue: str | None = None
    task: str | None = None
    node: str | None = None
    key: str | None = None
    since: datetime | None = None
    before: int | None = None


async def page(connection: AnyConnection, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
    """At most so many, as JSON-ready values, without what they carry."""
    conditions, arguments = _conditions(wanted)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    views = [view for view, states in _VIEWS.items() if wanted.state is None or wanted.state in states]
    columns = ", ".join(f"workerd.shown({name}) AS {name}" if name in _TIMES else name for name in COLUMNS)
    parts = [f"(SELECT {columns} FROM workerd.{view} {where} ORDER BY id DESC LIMIT $1)" for view in views]  # noqa: S608 - ours
    sql = f"SELECT * FROM ({' UNION ALL '.join(parts)}) AS found ORDER BY id DESC LIMIT $1"  # noqa: S608
    return [_told(row) for row in await connection.fetch(sql, limit, *arguments)]


def _conditions(wanted: Wanted) -> tuple[list[str], list[Any]]:
    """The arguments are those behind the first one. A state stands in the statement, so that each has its plan."""
    given = {
        "queue = {}": wanted.queue,
        "task = {}": wanted.task,
        "node = {}": wanted.node,
        "key = {}": wanted.key,
        "enqueued_at >= {}": wanted.since,
        "id < {}": wanted.before,
    }
    conditions = [] if wanted.state is None else [f"state = '{STATES[STATES.index(wanted.state)]}'"]
    arguments: list[Any] = []
    for condition, value in given.items():
        if value is not None:
            arguments.append(value)
            conditions.append(condition.format(f"${len(arguments) + 1}"))
    return conditions, arguments


def _told(row: Any) -> dict[str, Any]:
    told = dict(row)
    told["progress"] = told["progress"] and round(told["progress"], 4)
    told["error"] = told["error"] and told["error"].splitlines()[0][:500]
    return told
