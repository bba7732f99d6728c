"""The daemon of whoever writes its tasks."""

from __future__ import annotations

from typing import Annotated

import typer

from workerctl import context


def dev(
    name: Annotated[str | None, typer.Option("-n", help="Name of the daemon.")] = None,
    verbose: Annotated[bool, typer.Option("-v", help="Debug logging.")] = False,
) -> None:
    """Run the daemon in the foreground, and start it anew whenever a source file changes.

    Watched are the Python files of APP_DIR and of TASKS, and the settings file. `breakpoint()` in a handler works.

    Example: workerctl dev --tasks myapp.tasks
    """
    from workerctl.dev.session import Session
    from workerctl.dev.setup import Setup
    from workerctl.runtimes.local import Local
    from workerd.errors import WorkerdError

    if name is not None:
        context.set_flag("name", name)
    if verbose:
        context.set_flag("log_level", "DEBUG")
    setup = Setup.read()
    runs = Local(setup.settings, []).who()
    if runs is not None:
        raise WorkerdError(f"{setup.settings.name} runs already ({runs}): stop it first with `workerctl stop`")
    context.run(Session(setup).run())
