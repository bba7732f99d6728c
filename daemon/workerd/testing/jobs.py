"""What tests ask of the jobs in a queue, and how they make time pass for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workerd import codec
from workerd.queue.stage import stage
from workerd.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workerd.queue.client import Queue
    from workerd.tasks import Task

_PAYLOADS = (
    "SELECT payload::text, payload::jsonb @> $2::text::jsonb AS fits FROM workerd.job WHERE task = $1 ORDER BY id"
)
_EARLIER = (
    "UPDATE workerd.scheduled SET run_at = run_at - make_interval(secs => $1) WHERE waits IS NULL",
    "UPDATE workerd.awaited SET until = until - make_interval(secs => $1)",
    """UPDATE workerd.scheduled SET options = jsonb_set(options, '{deadline}', to_jsonb((options ->> 'deadline')::float8 - $1))
       WHERE options ? 'deadline'""",
    """UPDATE workerd.ready SET options = jsonb_set(options, '{deadline}', to_jsonb((options ->> 'deadline')::float8 - $1))
       WHERE options ? 'deadline'""",
)
SHOWN = 5  # payloads of other jobs in the message of a failure


async def assert_enqueued(
    queue: Queue, task: str | Task[..., Any], where: Mapping[str, Any] | None = None, count: int = 1
) -> None:
    """Raise AssertionError unless there are `count` jobs of the task, in any state, whose payload contains `where`.

    A success whose `result_ttl` is 0 leaves no job to be found.
    """
    name = task if isinstance(task, str) else task.name
    part = codec.dumps(dict(where or {}), "where")
    async with queue.connection() as connection:
        rows = await connection.fetch(_PAYLOADS, name, part)
    found = sum(row["fits"] for row in rows)
    if found != count:
        others = ", ".join(row["payload"] for row in rows[:SHOWN]) or "none"
        raise AssertionError(f"{found} jobs of {name} with {part}, expected {count}; its jobs: {others}")


async def advance(queue: Queue, by: Duration) -> int:
    """Let everything be due earlier by this, as if so much time had passed, and queue what is due; returns how many.

    Scheduled jobs, the ends of waits for answers and deadlines are moved; schedules, rates and what is kept for a time are not.
    Raises ValueError for a wrong duration.
    """
    seconds = parse_duration(by)
    queued = 0
    async with queue.connection() as connection:
        async with connection.transaction():
            for earlier in _EARLIER:
                await connection.execute(earlier, seconds)
        while batch := (await stage(connection))[0]:
            queued += batch
    return queued
