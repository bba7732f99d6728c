"""The command table: which command is where. A command's module is imported when the command is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

if TYPE_CHECKING:
    Command = TyperCommand | TyperGroup

# Where below `workerctl.commands` a command or a group is, and what the list of commands says about it: of a command the first
# paragraph of its docstring, of a group the whole help.
TABLE = {
    "start": ("daemon:start", "Start the daemon in the background and return when it is ready."),
    "stop": ("daemon:stop", "Drain the daemon and stop it, and the embedded database when nobody else uses it."),
    "restart": ("daemon:restart", "Drain and stop the daemon, then start it; starts it when it did not run."),
    "reload": (
        "daemon:reload",
        "Hand over to a new process that runs the code and settings of now; at no moment does nobody claim.",
    ),
    "run": ("daemon:run", "Run the daemon in the foreground, with one worker unless told otherwise."),
    "scale": ("daemon:scale", "Change the number of workers of the running daemon; no job is interrupted."),
    "dev": ("dev:dev", "Run the daemon in the foreground, and start it anew whenever a source file changes."),
    "status": ("status:status", "State of the daemon, its workers and what each runs. Exits 3 when it does not run."),
    "health": (
        "status:health",
        "Exit 0 while the daemon's loops turn; with --ready also only while it can claim jobs.",
    ),
    "stats": ("stats:stats", "Depth of each queue; throughput, success rate and run times of each task."),
    "logs": ("logs:logs", "Show the last lines of the log."),
    "follow": ("logs:follow", "Follow the log: short for `logs --follow`."),
    "enqueue": (
        "enqueue:enqueue",
        "Enqueue a job and print its id; --max-retries N gives it other retries than its task.",
    ),
    "config": ("setup:config", "Every setting, its value and where it came from; secrets masked."),
    "init": ("setup:init", "Begin a project here: tasks.py, .env and a test."),
    "check": (
        "doctor:check",
        "Check settings, directories, database, schema and tasks; all problems at once, exit 1 if there is any.",
    ),
    "doctor": (
        "doctor:doctor",
        "Look for what slows or stops the queue: all that check does, then server, sessions, tables, nodes, jobs; "
        "exit 1 on a problem.",
    ),
    "install": (
        "install:install",
        "Write the files that put the daemon, with the settings of now, into the hands of a service manager. "
        "Starts and enables nothing.",
    ),
    "uninstall": (
        "install:uninstall",
        "Stop what was installed and remove its files, settings and user; data is left.",
    ),
    "bench": (
        "bench:bench",
        "Measure drain, enqueue and latency on a database of its own: on the server of DATABASE_URL, else on an embedded one.",
    ),
    "manager": ("manager:manager", "Serve the web page and the HTTP API: jobs, queues, nodes, schedules."),
    "top": ("top:top", "Show the daemon, its queues, jobs and log, live on the terminal; keys scale, pause and retry."),
    "jobs": ("jobs:app", "List, show, retry, cancel, delete and await jobs."),
    "limits": ("limits:app", "Rates and concurrency of queues and tasks."),
    "schedules": ("schedules:app", "What is enqueued again and again."),
    "queues": ("queues:app", "List, pause and resume queues."),
    "nodes": ("nodes:app", "The daemons of this database, on every host."),
    "tokens": ("manager:tokens", "Tokens of the manager."),
    "db": ("database:app", "The schema in the database."),
}


class Table(TyperGroup):
    """The group of all commands; lists them without importing any."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**{**parts, "commands": _Commands()})

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        listed = {name: TyperCommand(name, help=about) for name, (_, about) in TABLE.items()}
        TyperGroup(commands={**listed}).format_commands(ctx, formatter)


class _Commands(Mapping[str, "Command"]):
    """The commands by name, each made at the first look at it."""

    def __getitem__(self, name: str) -> Command:
        return _made(name, *TABLE[name])

    def __iter__(self) -> Iterator[str]:
        return iter(TABLE)

    def __len__(self) -> int:
        return len(TABLE)


@cache
def _made(name: str, place: str, about: str) -> Command:
    module, _, attribute = place.partition(":")
    found = getattr(import_module(f"workerctl.commands.{module}"), attribute)
    parent = typer.Typer(rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        parent.add_typer(found, name=name, help=about)
    else:
        parent.command(name, cls=getattr(found, "cls", None))(found)
    return cast("Command", get_group(parent).commands[name])
