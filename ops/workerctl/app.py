"""The command table."""

from __future__ import annotations

import typer

from workerctl import context
from workerctl.commands import (
    bench,
    daemon,
    database,
    dev,
    doctor,
    enqueue,
    install,
    jobs,
    limits,
    logs,
    manager,
    nodes,
    queues,
    schedules,
    setup,
    stats,
    status,
    top,
)

app = typer.Typer(
    help="Operates the worker daemon and its queue.", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    epilog="Every setting can be given as a flag to any command, e.g. --workers 4 or --database-url …; `workerctl config` lists them. "
    "Example: workerctl start 4 && workerctl status",
)  # fmt: skip

for group in (daemon, dev, status, stats, logs, enqueue, setup, doctor, install, bench, manager, top):
    for command in group.commands:
        app.command(cls=getattr(command, "cls", None))(command)
app.add_typer(jobs.app, name="jobs", help="List, show, retry, cancel, delete and await jobs.")
app.add_typer(limits.app, name="limits", help="Rates and concurrency of queues and tasks.")
app.add_typer(schedules.app, name="schedules", help="What is enqueued again and again.")
app.add_typer(queues.app, name="queues", help="List, pause and resume queues.")
app.add_typer(nodes.app, name="nodes", help="The daemons of this database, on every host.")
app.add_typer(manager.tokens, name="tokens", help="Tokens of the manager.")
app.add_typer(database.app, name="db", help="The schema in the database.")


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and the schema's number."),
    runtime: context.RuntimeOption = None,
) -> None:
    """Operates the worker daemon and its queue."""
    context.set_runtime(runtime)
    if version:
        from workerctl.render import say
        from workerd import __version__
        from workerd.queue.migrate import latest

        say(f"workerctl {__version__}, schema {latest()}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        ctx.fail("Missing command")
