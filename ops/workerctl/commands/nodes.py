"""Nodes: all daemons of the database."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from workerctl import context, render

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """The daemons of this database, on every host."""


@app.command("list")
def list_nodes(
    every: Annotated[bool, typer.Option("--all", help="Also those that left.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """All daemons of the database, on every host.

    Example: workerctl nodes list
    """
    found = context.run(_list(every))
    if as_json:
        render.json(found)
        return
    columns = (
        "id",
        "name",
        "state",
        "workers",
        "busy",
        "transport",
        "heartbeat_age_s",
        "version",
        "jobs_done",
        "jobs_failed",
    )
    render.table("nodes", columns, [[n[c] for c in columns] for n in found])


async def _list(every: bool) -> list[dict[str, Any]]:
    from workerd.queue import inspect

    async with context.queue() as queue, queue.connection() as connection:
        return await inspect.nodes(connection, every=every)
