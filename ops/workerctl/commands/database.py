"""The schema: upgrade, status, upkeep and backups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from workerctl import context, render
from workerctl.commands import backup

if TYPE_CHECKING:
    from workerd.queue.migrate import Migration

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
for _command in backup.commands:
    app.command()(_command)


@app.command()
def upgrade(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be applied.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Only print the SQL, for psql.")] = False,
) -> None:
    """Bring the schema up to date; daemons do it at their start as well.

    Example: workerctl db upgrade --dry-run
    """
    from workerd.queue import migrate

    todo, prefixes = context.run(_upgrade(apply=not (dry_run or sql)))
    if not todo:
        render.say("-- the schema is up to date" if sql else "the schema is up to date")
    elif sql:
        render.say(migrate.script(todo, prefixes))
    else:
        for migration in todo:
            render.say(f"{'would apply' if dry_run else 'applied'} {migration.version} {migration.name}")
            for part in migration.parts if dry_run else ():
                if part.title:
                    render.say(f"    {part.title}")


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


@app.command()
def reindex() -> None:
    """Rebuild bloated indexes of the queue beside its work; the leader looks for them once a day.

    Example: workerctl db reindex
    """
    context.run(_reindex())


@app.command()
def roles(
    prefix: Annotated[
        str, typer.Option(help="What their names begin with; roles belong to the whole server.")
    ] = "workerd",
    only_print: Annotated[bool, typer.Option("--print", help="Only print the SQL, for psql.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Make the group roles that may enqueue, work, operate and read, and no more; again changes nothing.

    Example: workerctl db roles --prefix shop
    """
    from workerd.queue import roles

    if only_print:
        render.say(f"BEGIN;\n{roles.statements(prefix)}\nCOMMIT;")
        return
    known = roles.names(prefix)
    made = context.run(_roles(prefix))
    if as_json:
        render.json([{"role": name, "may": roles.ROLES[role], "created": name in made} for role, name in known.items()])
        return
    rows = [(name, roles.ROLES[role], "created" if name in made else "was there") for role, name in known.items()]
    render.table("roles", ("role", "may", ""), rows)
    render.say(f"give one to a login, for example: CREATE ROLE app LOGIN PASSWORD '…' IN ROLE {known['enqueue']}")


async def _upgrade(*, apply: bool) -> tuple[list[Migration], list[str]]:
    """What was applied, or would be, and the prefixes of the roles that may use the schema."""
    from workerd.queue import migrate, roles

    async with context.session() as (connection, _):
        todo = await (migrate.upgrade(connection) if apply else migrate.pending(connection))
        return todo, await roles.granted(connection)


async def _roles(prefix: str) -> list[str]:
    from workerd.errors import SchemaError
    from workerd.queue import migrate, roles

    async with context.session() as (connection, _):
        if await migrate.pending(connection):
            raise SchemaError("the schema is not up to date: run `workerctl db upgrade` first")
        return await roles.create(connection, prefix)


async def _current() -> int:
    from workerd.queue import migrate

    async with context.session() as (connection, _):
        return await migrate.current(connection)


async def _reindex() -> None:
    from workerd.queue import reindex

    async with context.session() as (connection, _):
        done = 0
        async for line in reindex.rebuild(connection):
            render.say(line)
            done += 1
    if not done:
        render.say("no index is bloated")
