"""What a running daemon was started with, against what is said here."""

from __future__ import annotations

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


def _is_here(directory: Path) -> bool:
    """By name or in fact: the name may be a link that leads to another release by now."""
    from workerd.daemon.handover.launch import working_directory

    here = working_directory()
    return here == directory or (directory.exists() and directory.samefile(here))
