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


@app.command()
def ageing(
    queue: Name,
    step: Annotated[str, typer.Argument(metavar="DURATION", help="Waiting for which a priority rises by one; off.")],
) -> None:
    """Let the priority of waiting jobs rise with their age, so that urgent ones do not hold them up for ever.

    Example: workerctl queues ageing ocr 5m
    """
    from workerd.units import parse_duration

    try:
        seconds = None if step == "off" else parse_duration(step)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if seconds == 0:
        raise typer.BadParameter(f"{step} is no time to wait: off lets priorities be as they are")
    context.run(_age(queue, seconds))
    render.say(
        f"{queue}: priorities are as they are" if seconds is None else f"{queue}: a priority rises by one each {step}"
    )


async def _age(name: str, seconds: float | None) -> None:
    from workerd.errors import JobError
    from workerd.queue import inspect

    async with context.queue() as queue, queue.connection() as connection:
        if not await inspect.age(connection, name, seconds):
            raise JobError(f"there is no queue {name}: a queue exists from its first job on")


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
