"""The manager, and the tokens with which programs and people come to it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from workerctl import context, render

tokens = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
POOL = 10  # connections
Name = Annotated[str, typer.Argument(metavar="NAME")]


def manager(
    host: Annotated[str | None, typer.Option(help="Address to listen on, instead of MANAGER_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, instead of MANAGER_PORT.")] = None,
    run_locally: Annotated[bool, typer.Option("--run-locally", help="Run jobs here while no node lives.")] = False,
    patience: Annotated[float, typer.Option(help="Seconds without a node after which that begins.", min=1)] = 30.0,
) -> None:
    """Serve the web page and the HTTP API: jobs, queues, nodes, schedules.

    Example: workerctl manager --port 8000
    """
    for name, value in (("manager_host", host), ("manager_port", port)):
        if value is not None:
            context.set_flag(name, str(value))
    context.run(_serve(patience if run_locally else None))


async def _serve(patience: float | None) -> None:
    """`patience`: seconds without a node after which jobs are run here; None: never."""
    from workerd.errors import ConfigError
    from workerd.queue import migrate

    try:
        from workerctl.manager.serve import serve
        from workerctl.manager.stand_in import StandIn
    except ImportError as error:
        raise ConfigError(f"the manager needs {error.name}: pip install 'workerd[manager]'") from error
    async with context.session() as (connection, direct):
        await migrate.upgrade(connection)
    async with context.queue(pool_size=POOL, upgrade=False) as queue:
        settings = context.settings()
        name = f"{settings.node}-stand-in"
        stand_in = None if patience is None else StandIn(queue, name, context.flags(), patience)
        await serve(queue, direct, settings, stand_in)


@tokens.command("create")
def create_token(
    name: Name,
    scope: Annotated[list[str], typer.Option(help="read, operate or work; may be repeated.")],
) -> None:
    """Make a token and print it: it is not shown a second time.

    Example: workerctl tokens create --scope read grafana
    """
    render.say(context.run(_create(name, scope)))


@tokens.command("list")
def list_tokens(
    every: Annotated[bool, typer.Option("--all", help="Also those that were revoked.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """The tokens, without what they are.

    Example: workerctl tokens list
    """
    found = context.run(_list(every))
    if as_json:
        render.json(found)
        return
    columns = ("name", "scopes", "created_at", "used_at", "revoked_at")
    render.table(
        "tokens", columns, [[", ".join(t["scopes"]) if c == "scopes" else t[c] for c in columns] for t in found]
    )


@tokens.command("revoke")
def revoke_token(name: Name) -> None:
    """Let a token be valid no more, within a second.

    Example: workerctl tokens revoke grafana
    """
    context.run(_revoke(name))
    render.say(f"{name} is revoked")


async def _create(name: str, scopes: list[str]) -> str:
    from workerd.queue import tokens as kept

    async with context.queue() as queue, queue.connection() as connection:
        return await kept.create(connection, name, scopes)


async def _list(every: bool) -> list[dict[str, Any]]:
    from workerd.queue import tokens as kept

    async with context.queue() as queue, queue.connection() as connection:
        return await kept.find(connection, revoked=every)


async def _revoke(name: str) -> None:
    from workerd.queue import tokens as kept

    async with context.queue() as queue, queue.connection() as connection:
        await kept.revoke(connection, name)
