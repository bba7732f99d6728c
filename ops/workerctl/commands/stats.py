"""Figures by queue and task."""

from __future__ import annotations

from typing import Annotated

import typer

from workerctl import context, render

QUEUE = ("queue", "queued", "scheduled", "blocked", "running", "oldest_queued_s", "paused")
TASK = ("task", "done", "failed", "retried", "success", "per_hour", "run_p50_ms", "p95_ms", "p99_ms", "wait_p95_ms")


def stats(
    hours: Annotated[float, typer.Option(help="How far back.", min=0.1, max=24 * 35)] = 24.0,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Depth of each queue; throughput, success rate and run times of each task.

    Example: workerctl stats --hours 1
    """
    queues, tasks = context.run(_ask(hours))
    if as_json:
        render.json({"hours": hours, "queues": queues, "tasks": tasks})
        return
    render.table("queues", QUEUE, [[q[c] for c in QUEUE] for q in queues])
    rows = [
        (
            t["task"],
            t["succeeded"],
            t["failed"],
            t["retried"],
            None if t["success_rate"] is None else f"{t['success_rate']:.1%}",
            t["per_hour"],
            t["run_p50_ms"],
            t["run_p95_ms"],
            t["run_p99_ms"],
            t["wait_p95_ms"],
        )
        for t in tasks
    ]
    render.table(f"tasks, last {hours:g} h", TASK, rows)


async def _ask(hours: float) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    from workerd.queue import inspect

    async with context.queue() as queue, queue.connection() as connection:
        return await inspect.queues(connection), await inspect.tasks(connection, hours)
