"""What operators ask of the database: jobs, queues, nodes, figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workerd import codec
from workerd.queue.depth import DEPTHS
from workerd.queue.tally import quantile

if TYPE_CHECKING:
    from workerd.job import AnyConnection

STATES = ("queued", "running", "scheduled", "blocked", "succeeded", "failed", "cancelled")

_COLUMNS = """id, task, queue, state, priority, payload, result, error, attempt, failures, max_retries, progress, message, key,
    workerd.shown(enqueued_at) AS enqueued_at, workerd.shown(run_at) AS run_at, workerd.shown(started_at) AS started_at,
    workerd.shown(finished_at) AS finished_at, node, attempts, fingerprint"""
_WHERE = """
    ($1::text[] IS NULL OR state = ANY ($1)) AND ($2::text IS NULL OR queue = $2) AND ($3::text IS NULL OR task = $3)
    AND ($4::text IS NULL OR node = $4) AND ($5::text IS NULL OR key = $5)
    AND ($6::double precision IS NULL OR enqueued_at < now() - make_interval(secs => $6))
    AND ($7::text IS NULL OR fingerprint = $7)
"""
_LIST = f"SELECT {_COLUMNS} FROM workerd.job WHERE {_WHERE} ORDER BY id DESC LIMIT $8"  # noqa: S608 - constants
_IDS = f"SELECT id FROM workerd.job WHERE {_WHERE} ORDER BY id"  # noqa: S608 - constants
_SHOW = f"SELECT {_COLUMNS} FROM workerd.job WHERE id = $1"  # noqa: S608 - constants
_BY_KEY = "SELECT id FROM workerd.job WHERE key = $1 ORDER BY id DESC LIMIT 1"
_QUEUES = f"""
    SELECT q.name AS queue, coalesce(d.queued, 0) AS queued, coalesce(d.scheduled, 0) AS scheduled, coalesce(d.blocked, 0) AS blocked,
        coalesce(d.running, 0) AS running, d.oldest AS oldest_queued_s, q.paused_at IS NOT NULL AS paused
    FROM workerd.queue q LEFT JOIN ({DEPTHS}) d ON d.queue = q.name ORDER BY q.name
"""  # noqa: S608 - constants
_TALLIES = """
    SELECT task, sum(succeeded)::bigint AS succeeded, sum(failed)::bigint AS failed, sum(retried)::bigint AS retried,
        sum(cancelled)::bigint AS cancelled, array_agg(run) AS run, array_agg(wait) AS wait
    FROM workerd.tally WHERE slot > now() - make_interval(secs => $1) - interval '5 minutes' GROUP BY task ORDER BY task
"""
_NODES = """
    SELECT id::text, name, CASE WHEN dead_at IS NOT NULL THEN 'dead' WHEN draining THEN 'draining' ELSE 'alive' END AS state,
        workers, busy, transport,
        extract(epoch FROM clock_timestamp() - beat)::double precision AS heartbeat_age_s,
        version, jobs_done, jobs_failed, pid, queues, tasks, started_at, rss AS rss_bytes, lag * 1000 AS loop_lag_ms
    FROM workerd.node
    WHERE forgotten_at IS NULL AND ($1 OR NOT stopped AND (dead_at IS NULL OR dead_at > now() - interval '1 day'))
    ORDER BY dead_at IS NOT NULL, name, started_at
"""
_RUNS = """
    SELECT l.node::text, r.task, count(*) FROM workerd.lease l CROSS JOIN LATERAL workerd.positions(l.tickets) AS held(pos)
        CROSS JOIN LATERAL (SELECT task FROM workerd.ready WHERE lane = l.lane AND pos = held.pos OFFSET 0) AS r
    GROUP BY l.node, r.task ORDER BY l.node, count(*) DESC, r.task
"""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs: every given condition holds. `older_than` is seconds since the job was enqueued,
    `fingerprint` that of its last failure."""

    states: tuple[str, ...] = ()
    queue: str | None = None
    task: str | None = None
    node: str | None = None
    key: str | None = None
    older_than: float | None = None
    fingerprint: str | None = None

    def arguments(self) -> tuple[Any, ...]:
        return (
            list(self.states) or None,
            self.queue,
            self.task,
            self.node,
            self.key,
            self.older_than,
            self.fingerprint,
        )


async def jobs(connection: AnyConnection, which: Filter, limit: int) -> list[dict[str, Any]]:
    """The newest jobs that fit, as JSON-ready values."""
    return [_job(row) for row in await connection.fetch(_LIST, *which.arguments(), limit)]


async def job_ids(connection: AnyConnection, which: Filter) -> list[int]:
    """The ids of all jobs that fit."""
    return [row[0] for row in await connection.fetch(_IDS, *which.arguments())]


async def job(connection: AnyConnection, job_id: int) -> dict[str, Any] | None:
    """One job with its attempts; None when there is none of this id."""
    row = await connection.fetchrow(_SHOW, job_id)
    return None if row is None else _job(row)


async def id_of_key(connection: AnyConnection, key: str) -> int | None:
    """The newest job with this key."""
    found: int | None = await connection.fetchval(_BY_KEY, key)
    return found


async def queues(connection: AnyConnection) -> list[dict[str, Any]]:
    """Depth and oldest waiting job of each queue."""
    return [dict(row) for row in await connection.fetch(_QUEUES)]


async def pause(connection: AnyConnection, queue: str, *, paused: bool) -> bool:
    """Pause or resume a queue; False when there is none of this name."""
    changed = await connection.fetchval(
        "UPDATE workerd.queue SET paused_at = CASE WHEN $2 THEN coalesce(paused_at, now()) END WHERE name = $1 RETURNING true",
        queue,
        paused,
    )
    await connection.execute("SELECT pg_notify('workerd', 'lanes')")
    return changed is not None


async def age(connection: AnyConnection, queue: str, seconds: float | None) -> bool:
    """Let priorities rise by one each so many seconds of waiting (None: not at all); False when there is no queue of this name."""
    changed = await connection.fetchval(
        "UPDATE workerd.queue SET ageing = $2 WHERE name = $1 RETURNING true", queue, seconds
    )
    return changed is not None


async def tasks(connection: AnyConnection, hours: float) -> list[dict[str, Any]]:
    """Figures of each task over the last hours, in five-minute steps; times in milliseconds, None where nothing was measured."""
    found = []
    for row in await connection.fetch(_TALLIES, hours * 3600):
        run = [sum(column) for column in zip(*row["run"], strict=True)]
        wait = [sum(column) for column in zip(*row["wait"], strict=True)]
        ended = row["succeeded"] + row["failed"]
        found.append(
            {
                "task": row["task"],
                "succeeded": row["succeeded"],
                "failed": row["failed"],
                "retried": row["retried"],
                "cancelled": row["cancelled"],
                "success_rate": round(row["succeeded"] / ended, 4) if ended else None,
                "per_hour": round(ended / hours, 2),
                "run_p50_ms": _ms(run, 0.5),
                "run_p95_ms": _ms(run, 0.95),
                "run_p99_ms": _ms(run, 0.99),
                "wait_p95_ms": _ms(wait, 0.95),
            }
        )
    return found


async def nodes(connection: AnyConnection, *, every: bool = False) -> list[dict[str, Any]]:
    """The nodes that live or died within a day, with how many jobs of which tasks they hold; with `every` also those that left."""
    found = {row["id"]: {**codec.as_json(row), "runs": {}} for row in await connection.fetch(_NODES, every)}
    for node, task, count in await connection.fetch(_RUNS):
        if node in found:
            found[node]["runs"][task] = count
    return list(found.values())


async def known_tasks(connection: AnyConnection) -> set[str]:
    """The tasks that some living node runs."""
    return {
        row[0]
        for row in await connection.fetch("SELECT DISTINCT unnest(tasks) FROM workerd.node WHERE dead_at IS NULL")
    }


def _job(row: Any) -> dict[str, Any]:
    told = dict(row)
    for name in ("payload", "result", "attempts"):
        told[name] = None if told[name] is None else codec.shown(told[name])
    told["retries_left"] = None if told["max_retries"] is None else max(0, told["max_retries"] - told["failures"])
    told["progress"] = None if told["progress"] is None else round(told["progress"], 4)
    told["attempts"] = [*(told["attempts"] or []), *_last_attempt(told)]
    return told


def _last_attempt(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The attempt that runs, or that ended the job: the list in the row holds the ones before."""
    if told["started_at"] is None:
        return []
    return [
        {
            "attempt": told["attempt"],
            "node": told["node"],
            "started_at": told["started_at"],
            "ended_at": told["finished_at"],
            "outcome": told["state"],
            "error": told["error"],
        }
    ]


def _ms(histogram: list[int], share: float) -> float | None:
    value = quantile(histogram, share)
    return None if value is None else round(value, 3)


async def is_sensitive(connection: AnyConnection, task: str) -> bool:
    """Whether what jobs of a task carry is not for everybody who reads."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM workerd.task WHERE name = $1 AND sensitive)", task
    )
    return found
