"""The tasks: can their modules be imported?"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from workerctl.doctor.finding import Finding, from_error, ok
from workerd.errors import TaskError

if TYPE_CHECKING:
    from workerd.settings import Settings


def tasks(settings: Settings) -> list[Finding]:
    """As a daemon does at its start."""
    from workerd.tasks import load_modules

    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a module prints is not our answer
            found = load_modules(settings.tasks, settings.app_dir)
    except TaskError as error:
        return [from_error("tasks", error)]
    return [ok("tasks", f"{len(found)} in {', '.join(settings.tasks)}")]
