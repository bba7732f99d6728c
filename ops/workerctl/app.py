"""The command line: what stands before a command."""

from __future__ import annotations

import typer

from workerctl import context, plain
from workerctl.table import Table

plain.take()
app = typer.Typer(
    cls=Table,
    help="Operates the worker daemon and its queue.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Every setting can be given as a flag to any command, e.g. --workers 4 or --database-url …; `workerctl config` lists them. "
    "Example: workerctl start 4 && workerctl status",
)


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
