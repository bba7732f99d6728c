"""Nodes: list, scale, drain, forget: all daemons of the database, on every host."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from workerctl import context, render

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
Node = Annotated[str, typer.Argument(metavar="NODE", help="Its name or id.")]
Timeout = Annotated[str, typer.Option(metavar="TIME", help="How long to wait until the node has taken the order.")]


@app.callback()
def group() -> None:
    """The daemons of this database, on every host."""


@app.command("list")
def list_nodes(
    every: Annotated[bool, typer.Option("--all", help="Also those that left or died long ago.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """All daemons of the database, on every host.

    Example: workerctl nodes list
    """
    found = context.run(_list(every))
    if as_json:
        render.json(found)
        return
    columns = ("id", "name", "state", "workers", "done", "failed", "silent_s", "version", "transport")
    render.table("nodes", columns, [_row(n) for n in found])


def _row(node: dict[str, Any]) -> tuple[object, ...]:
    workers = f"{node['workers']}, {node['busy']} busy"
    transport = None if node["transport"] == "postgres" else node["transport"]  # as nearly all have it
    counts = node["jobs_done"], node["jobs_failed"], node["heartbeat_age_s"]
    return (node["id"], node["name"], node["state"], workers, *counts, node["version"], transport)


@app.command()
def scale(node: Node, workers: Annotated[int, typer.Argument(metavar="N", min=1)], timeout: Timeout = "30s") -> None:
    """Change the number of workers of a node; no job is interrupted.

    Example: workerctl nodes scale web-1 8
    """
    name, result = context.run(_order(node, "scale", {"workers": workers}, _seconds(timeout)))
    render.say(f"{name}: {result['workers']} workers, before {result['before']}")


@app.command()
def drain(node: Node, timeout: Timeout = "30s") -> None:
    """Let a node finish what it runs, give back the rest and stop, as SIGTERM does.

    Example: workerctl nodes drain web-1
    """
    name, result = context.run(_order(node, "drain", {}, _seconds(timeout)))
    render.say(f"{name} drains: {result['busy']} jobs run")


@app.command()
def forget(node: Node) -> None:
    """List the dead nodes of a name, or one by its id, no more. Jobs that they ran keep the name.

    Example: workerctl nodes forget web-1
    """
    count = context.run(_forget(node))
    render.say(f"{count} dead {'node' if count == 1 else 'nodes'} forgotten")


def _seconds(text: str) -> float:
    from workerd.errors import ConfigError
    from workerd.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"--timeout: {error}") from None


async def _order(node: str, verb: str, arguments: dict[str, Any], timeout: float) -> tuple[str, dict[str, Any]]:
    from workerctl.ordering import carry_out

    async with context.queue() as queue, queue.connection() as connection:
        return await carry_out(connection, node, verb, arguments, timeout)


async def _forget(node: str) -> int:
    from workerd.queue import fleet

    async with context.queue() as queue, queue.connection() as connection:
        return await fleet.forget(connection, node)


async def _list(every: bool) -> list[dict[str, Any]]:
    from workerd.queue import inspect

    async with context.queue() as queue, queue.connection() as connection:
        return await inspect.nodes(connection, every=every)
