"""The tasks: can their modules be imported?"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from workerctl.doctor.finding import Finding, ok, problem
from workerd.errors import TaskError

if TYPE_CHECKING:
    from workerd.settings import Settings


def tasks(settings: Settings) -> list[Finding]:
    """As a daemon does at its start."""
    from workerd.tasks import load_modules

    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a module prints is not our answer
            registry = load_modules(settings.tasks, settings.app_dir)
    except TaskError as error:
        found = str(error).removeprefix("TASKS: ")
        return [problem("tasks", found, "correct TASKS, APP_DIR or the module, or install what it needs")]
    return [ok("tasks", f"{len(registry)} in {', '.join(settings.tasks)}")]
