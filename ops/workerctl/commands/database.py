"""The schema: upgrade and status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from workerctl import context, render

if TYPE_CHECKING:
    from workerd.queue.migrate import Migration

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command()
def upgrade(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be applied.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Only print the SQL.")] = False,
) -> None:
    """Bring the schema up to date; daemons do it at their start as well.

    Example: workerctl db upgrade --dry-run
    """
    todo = context.run(_upgrade(apply=not (dry_run or sql)))
    if sql:
        for migration in todo:
            render.say(f"-- {migration.version} {migration.name}\n{migration.sql}")
        return
    if not todo:
        render.say("the schema is up to date")
    for migration in todo:
        render.say(f"{'would apply' if dry_run else 'applied'} {migration.version} {migration.name}")


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> int:
    """Version of the schema in the database and of this program; exits 1 when they differ.

    Example: workerctl db status
    """
    from workerd.queue.migrate import latest

    current = context.run(_current())
    if as_json:
        render.json({"schema": current, "program": latest()})
    else:
        render.say(f"schema {current}, this program knows {latest()}")
    return 0 if current == latest() else 1


async def _upgrade(*, apply: bool) -> list[Migration]:
    from workerd.queue import migrate

    async with context.queue(upgrade=False) as queue, queue.connection() as connection:
        return await (migrate.upgrade(connection) if apply else migrate.pending(connection))


async def _current() -> int:
    from workerd.queue import migrate

    async with context.queue(upgrade=False) as queue, queue.connection() as connection:
        return await migrate.current(connection)
