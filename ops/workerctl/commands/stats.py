"""Figures by queue and task."""

from __future__ import annotations

from typing import Annotated

import typer

from workerctl import context, render


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
    columns = ("queue", "queued", "scheduled", "blocked", "running", "oldest_queued_s", "paused")
    render.table("queues", columns, [[q[c] for c in columns] for q in queues])
    shown = (
        "task",
        "succeeded",
        "failed",
        "retried",
        "per_hour",
        "run_p50_ms",
        "run_p95_ms",
        "run_p99_ms",
        "wait_p95_ms",
    )
    rows = [[*(t[c] for c in shown), None if t["success_rate"] is None else f"{t['success_rate']:.1%}"] for t in tasks]
    render.table(f"tasks, last {hours:g} h", (*shown, "success"), rows)


async def _ask(hours: float) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    from workerd.queue import inspect

    async with context.queue() as queue, queue.connection() as connection:
        return await inspect.queues(connection), await inspect.tasks(connection, hours)


commands = (stats,)
