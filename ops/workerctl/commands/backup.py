"""Backup and restore of the queue, with the attachments that are stored beside it."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workerctl import context, render

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.config import Settings

Json = Annotated[bool, typer.Option("--json", help="For scripts.")]


def backup(
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR|FILE.zip", help="Where to; by default STATE_DIR/backups, named by the time."),
    ] = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Keep only so many backups of that directory, the newest.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the queue, as it is at one moment, and the attachments into one file; daemons go on working.

    Example: workerctl db backup --to /var/backups/workerd --keep 14
    """
    from workerctl import archive
    from workerd.errors import ConfigError

    to = to or context.settings().state_dir / "backups"
    named = to.suffix == ".zip"
    if named and keep is not None:
        raise ConfigError("--keep goes with a directory: give --to one, or leave it out")
    path = to if named else to / archive.name_now()
    done = context.run(_backup(path))
    done["size_bytes"] = path.stat().st_size
    removed = archive.retain(path.parent, keep) if keep is not None else []
    if as_json:
        render.json({**done, "removed": [str(each) for each in removed]})
        return
    render.say(
        f"backed up {done['jobs']:,} jobs and {done['attachments']:,} attachments by {done['by']}: "
        f"{path} ({done['size_bytes'] / 1e6:,.1f} MB)"
    )
    if removed:
        render.say(f"removed {len(removed)} older backups")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of jobs that are there: they are lost.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Restore a backup of the queue and its attachments, all or nothing. What ran when it was made is queued again.

    Example: workerctl db restore workerd-20260101T030000Z.zip --replace
    """
    done = context.run(_restore(file, replace=replace))
    if as_json:
        render.json(done)
        return
    render.say(
        f"restored {done['jobs']:,} jobs and {done['attachments']:,} attachments of {render.brief(done['created_at'])}; "
        f"{done['queued_again']:,} jobs that ran then are queued again"
    )


commands: list[Callable[..., Any]] = [backup, restore]


async def _backup(path: Path) -> dict[str, Any]:
    from workerctl import archive
    from workerd.embedded import binaries
    from workerd.queue.backup import backup as write

    async with context.session() as (connection, dsn):
        program = binaries.client("pg_dump", connection.get_server_version().major)
        with archive.write(path) as zipped:
            with zipped.open(archive.QUEUE, "w", force_zip64=True) as out:
                contents = await write(connection, dsn, out.write, program)
            attachments = archive.add_attachments(zipped, _attachments(context.settings()))
            by = "COPY" if program is None else "pg_dump"
            zipped.writestr(archive.MANIFEST, contents.to_json(attachments=attachments, by=by))
    return {
        "file": str(path),
        "created_at": contents.created_at,
        "by": by,
        "jobs": sum(contents.jobs.values()),
        "attachments": attachments,
    }


async def _restore(path: Path, *, replace: bool) -> dict[str, Any]:
    import asyncpg

    from workerctl import archive
    from workerd.queue import restore
    from workerd.queue.contents import Contents

    settings = context.settings()
    with archive.read(path) as zipped:
        contents = Contents.from_json(zipped.read(archive.MANIFEST))
        async with context.session() as (connection, _):
            async with connection.transaction():
                returned = await restore.restore(
                    connection, contents, archive.script(zipped), replace=replace, ttl=settings.failure_ttl
                )
                attachments = archive.extract_attachments(zipped, _attachments(settings))
            try:
                await restore.end_sessions(connection)
            except asyncpg.InsufficientPrivilegeError:
                render.warn("daemons of another role notice the restore only with their next heartbeat")
    return {
        "file": str(path),
        "created_at": contents.created_at,
        "jobs": sum(contents.jobs.values()),
        "queued_again": returned,
        "attachments": attachments,
    }


def _attachments(settings: Settings) -> Path:
    return settings.attachments_dir or settings.state_dir / "attachments"
