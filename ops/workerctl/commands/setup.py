"""Before the first start: config, check, init."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from typing import TYPE_CHECKING, Annotated

import typer

from workerctl import context, render

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TASKS = '''"""Tasks of this project. Run them: workerctl start --tasks tasks; enqueue one: workerctl enqueue hello '{"name": "you"}'."""

from workerd import Job, Retry, task


@task(queue="default", retry=Retry(max=3, interval=60), timeout="5m")
async def hello(name: str, *, job: Job) -> str:
    await job.progress(0.5, "thinking")
    return f"Hello {name}"
'''
TEST = """import asyncio
from unittest.mock import AsyncMock

from tasks import hello


def test_hello_greets() -> None:
    assert asyncio.run(hello("you", job=AsyncMock())) == "Hello you"
"""
ENV = """# Settings of the daemon; `workerctl config` shows all of them.
# DATABASE_URL=postgresql://user:password@localhost/app   (without it: an embedded PostgreSQL)
TASKS=tasks
WORKERS=2
"""
FILES = {"tasks.py": TASKS, "test_tasks.py": TEST, ".env": ENV}


def config(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Every setting, its value and where it came from; secrets masked.

    Example: workerctl config --workers 4
    """
    loaded = context.configuration()
    rows = [(name.upper(), loaded.shown(name), loaded.sources[name]) for name in loaded.sources]
    if as_json:
        render.json({name: {"value": value, "source": source} for name, value, source in rows})
    else:
        render.table("settings", ("setting", "value", "from"), rows)
    for warning in loaded.warnings:
        render.warn(warning)


def check(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> int:
    """Check settings, directories, database, schema and tasks; all problems at once, exit 1 if there is any.

    Example: workerctl check
    """
    findings = context.run(_findings())
    if as_json:
        render.json([{"check": what, "ok": problem is None, "problem": problem} for what, problem in findings])
    else:
        render.table(
            "check", ("check", "", "what to do"), [(what, "ok" if p is None else "problem", p) for what, p in findings]
        )
    return 1 if any(problem for _, problem in findings) else 0


async def _findings() -> list[tuple[str, str | None]]:
    from workerd.errors import ConfigError, TaskError
    from workerd.tasks import load_modules

    try:
        loaded = context.configuration()
    except ConfigError as error:
        return [("settings", problem) for problem in error.problems]
    settings = loaded.settings
    found: list[tuple[str, str | None]] = [
        ("settings", None),
        *((("settings", warning)) for warning in loaded.warnings),
    ]
    for what, folder in (
        ("STATE_DIR", settings.state_dir),
        ("RUNTIME_DIR", settings.runtime_dir),
        ("LOG_DIR", settings.log_dir),
    ):
        found.append(
            (what, None if _writable(folder) else f"{folder} is not writable: set {what} to another directory")
        )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a module prints is not our answer
            load_modules(settings.tasks, settings.app_dir)
        found.append(("tasks", None))
    except TaskError as error:
        found.append(("tasks", str(error)))
    return [*found, *[each async for each in _database_findings()]]


async def _database_findings() -> AsyncIterator[tuple[str, str | None]]:
    from workerd.errors import DatabaseError
    from workerd.queue import migrate

    try:
        async with context.queue(upgrade=False) as queue, queue.connection() as connection:
            version = await connection.fetchval("SHOW server_version_num")
            yield (
                "database",
                None
                if int(version) >= 150000
                else f"PostgreSQL {int(version) // 10000} is too old: 15 or newer is needed",
            )
            durable = await connection.fetchval("SHOW synchronous_commit")
            yield (
                "synchronous_commit",
                None
                if durable != "off"
                else "it is off: a crash of the server loses jobs that were enqueued; turn it on for this role",
            )
            current = await migrate.current(connection)
            behind = f"it has version {current}, this program needs {migrate.latest()}: run `workerctl db upgrade`"
            yield "schema", None if current == migrate.latest() else behind
    except DatabaseError as error:
        yield "database", str(error)


def init() -> None:
    """Begin a project here: tasks.py, .env and a test.

    Example: mkdir shop && cd shop && workerctl init
    """
    from pathlib import Path

    from workerd.errors import ConfigError

    here = Path.cwd()
    present = [name for name in FILES if (here / name).exists()]
    if present:
        raise ConfigError(f"{', '.join(present)} exist here already: nothing was written")
    try:
        for name, text in FILES.items():
            (here / name).write_text(text)
    except OSError as error:
        raise ConfigError(f"{here} is not writable: {error.strerror}") from error
    render.say(f'wrote {", ".join(FILES)}; now: workerctl start && workerctl enqueue hello \'{{"name": "you"}}\'')


def _writable(folder: Path) -> bool:
    """Whether the directory, or the nearest one above it that exists, can be written: by writing, for modes do not tell it all."""
    nearest = next(f for f in (folder, *folder.parents) if f.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return True
    except OSError:
        return False


commands = (config, check, init)
