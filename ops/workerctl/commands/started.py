"""What a running daemon was started with, against what is said here."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from workerctl import context, render

if TYPE_CHECKING:
    from pathlib import Path

    from workerctl.runtimes.runtime import Runtime


def keep(chosen: Runtime) -> bool:
    """Take over the flags it was started with, where that was here; whether there are any."""
    from workerd.errors import WorkerdError

    try:
        launched = chosen.launch()
    except WorkerdError as error:  # one of an older version
        render.warn(f"the flags that {chosen.settings.name} was started with are not known: {error}")
        return False
    if launched is None or not (launched.flags or launched.file):
        return False
    if not _is_here(launched.directory):
        names = [*sorted(launched.flags), *(["config"] if launched.file else [])]
        given = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        render.warn(
            f"{chosen.settings.name} was started in {launched.directory}: what it was given there does not hold here: {given}"
        )
        return False
    context.keep(launched.flags, launched.file)
    return True


def compare(chosen: Runtime) -> None:
    """Warn where the daemon that runs is another project's: it takes none of the jobs of this one.

    One that a supervisor keeps has its settings from there, whatever folder we are in.
    """
    from workerd.errors import WorkerdError

    if chosen.name != "local" or chosen.keeper() is not None:
        return
    try:
        told = chosen.status()[0]
        running = {"app_dir": told["app_dir"], "tasks": ",".join(told["tasks"])}
        launched = chosen.launch()
    except (WorkerdError, LookupError):  # it has just gone, is about to start, or is of an older version
        return
    settings = chosen.settings
    ours = {"app_dir": str(settings.app_dir.absolute()), "tasks": ",".join(settings.tasks)}
    if running == ours:
        return
    pinned = launched.flags if launched is not None and _is_here(launched.directory) else {}
    words = "".join(
        f" --{name.replace('_', '-')} {shlex.quote(ours[name])}"
        for name in ours
        if context.given(name) or name in pinned
    )
    render.warn(
        f"the daemon that runs has the tasks {running['tasks']} of {running['app_dir']}, not {ours['tasks']} of {ours['app_dir']}: "
        f"`workerctl restart{words}` here replaces it, `workerctl start --name NAME{words}` starts one beside it"
    )


def _is_here(directory: Path) -> bool:
    """By name or in fact: the name may be a link that leads to another release by now."""
    from workerd.daemon.handover.launch import working_directory

    here = working_directory()
    return here == directory or (directory.exists() and directory.samefile(here))
