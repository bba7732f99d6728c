"""Who keeps a daemon running: supervisor or pm2, as they leave their marks in its environment."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from workerd.daemon.parent import BACKGROUND


@dataclass(frozen=True)
class Keeper:
    """`command` is the program by which a person tells it what to do."""

    name: str
    command: str
    program: str  # the daemon as it is called there

    def order(self, verb: str) -> str:
        """What a person types."""
        return f"{self.command} {verb} {self.program}"


def keeper_of(pid: int) -> Keeper | None:
    """None where nobody starts it again."""
    try:
        marks = psutil.Process(pid).environ()
    except psutil.Error:
        return None
    if BACKGROUND in marks:  # our own `start`, by whomever it was called
        return None
    if "SUPERVISOR_PROCESS_NAME" in marks:
        group, process = marks.get("SUPERVISOR_GROUP_NAME", ""), marks["SUPERVISOR_PROCESS_NAME"]
        return Keeper("supervisor", "supervisorctl", process if group in ("", process) else f"{group}:{process}")
    if "pm_id" in marks and "PM2_HOME" in marks:
        return Keeper("pm2", "pm2", marks.get("name", marks["pm_id"]))
    return None
