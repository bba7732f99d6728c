"""Limits: list, set, clear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from workerctl import context, render

if TYPE_CHECKING:
    from workerd.limit import Limit
    from workerd.queue.limits import Scope

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
Kind = Annotated[str, typer.Argument(metavar="SCOPE", help="queue, task, or key: each value of the task's limit key.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the queue or the task.")]


@app.command("list")
def list_limits(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """The limits in force, and how many jobs they have let in and hold back.

    Example: workerctl limits list
    """
    found = context.run(_list())
    if as_json:
        render.json(found)
        return
    columns = ("scope", "name", "limit_key", "rate", "concurrency", "origin", "admitted", "waiting")
    render.table("limits", columns, [[limit[c] for c in columns] for limit in found])


@app.command("set")
def set_limit(
    scope: Kind,
    name: Name,
    rate: Annotated[str | None, typer.Option("--rate", help="Starts: 50/s, 100/m, 1000/h; off for no limit.")] = None,
    concurrency: Annotated[str | None, typer.Option("--concurrency", help="Jobs at a time; off for no limit.")] = None,
) -> None:
    """Limit a queue or a task, in the whole fleet and within a second; goes before what the code declares.

    Example: workerctl limits set task ocr_extract --rate 10/s --concurrency 3
    """
    if rate is None and concurrency is None:
        raise typer.BadParameter("give --rate, --concurrency or both")
    context.run(_set(_scope(scope), name, _limit(rate, concurrency)))
    render.say(f"{scope} {name}: {rate or 'no rate'}, {concurrency or 'no concurrency'}")


@app.command()
def clear(scope: Kind, name: Name) -> None:
    """Let the limit that the code declares be in force again.

    Example: workerctl limits clear task ocr_extract
    """
    context.run(_clear(_scope(scope), name))
    render.say(f"{scope} {name}: as its code declares")


def _scope(text: str) -> Scope:
    for scope in ("queue", "task", "key"):
        if text == scope:
            return scope
    raise typer.BadParameter(f"{text} is no scope: queue, task or key")


def _limit(rate: str | None, concurrency: str | None) -> Limit:
    from workerd.limit import Limit
    from workerd.units import parse_rate

    try:
        per_second = None if rate in (None, "off") else parse_rate(rate)
        at_a_time = None if concurrency in (None, "off") else int(concurrency)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if at_a_time is not None and at_a_time < 1:
        raise typer.BadParameter(
            f"--concurrency is {concurrency}, allowed is 1 and more, or off (to stop a queue: workerctl queues pause)"
        )
    return Limit(per_second, at_a_time)


async def _list() -> list[dict[str, Any]]:
    from workerd.queue import limits

    async with context.queue() as queue, queue.connection() as connection:
        return await limits.find(connection)


async def _set(scope: Scope, name: str, limit: Limit) -> None:
    from workerd.errors import JobError
    from workerd.queue import limits

    async with context.queue() as queue, queue.connection() as connection:
        if not await limits.exists(connection, scope, name):
            raise JobError(
                f"there is no {'queue' if scope == 'queue' else 'task'} {name}: it exists from its first job or daemon on"
            )
        await limits.put(connection, scope, name, limit)


async def _clear(scope: Scope, name: str) -> None:
    from workerd.errors import JobError
    from workerd.queue import limits

    async with context.queue() as queue, queue.connection() as connection:
        if not await limits.clear(connection, scope, name):
            raise JobError(f"no limit of {scope} {name} was set by command: workerctl limits list")
