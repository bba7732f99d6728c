"""Queues: list, pause, resume."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from workerctl import context, render

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="QUEUE")]


@app.command("list")
def list_queues(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Depth and oldest waiting job of each queue.

    Example: workerctl queues list
    """
    found = context.run(_list())
    if as_json:
        render.json(found)
        return
    columns = ("queue", "queued", "scheduled", "blocked", "running", "oldest_queued_s", "paused")
    render.table("queues", columns, [[q[c] for c in columns] for q in found])


@app.command()
def pause(queue: Name) -> None:
    """Stop all daemons from claiming jobs of a queue; running ones go on.

    Example: workerctl queues pause ocr
    """
    context.run(_pause(queue, paused=True))
    render.say(f"{queue} is paused")


@app.command()
def resume(queue: Name) -> None:
    """Let daemons claim jobs of a queue again.

    Example: workerctl queues resume ocr
    """
    context.run(_pause(queue, paused=False))
    render.say(f"{queue} is served again")


async def _list() -> list[dict[str, Any]]:
    from workerd.queue import inspect

    async with context.queue() as queue, queue.connection() as connection:
        return await inspect.queues(connection)


async def _pause(name: str, *, paused: bool) -> None:
    from workerd.errors import JobError
    from workerd.queue import inspect

    async with context.queue() as queue, queue.connection() as connection:
        if not await inspect.pause(connection, name, paused=paused):
            raise JobError(f"there is no queue {name}: a queue exists from its first job on")
