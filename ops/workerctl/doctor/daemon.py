"""The daemon of this name on this host, if one runs: what it says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workerctl import control
from workerctl.doctor.finding import Finding, ok, problem, warning
from workerd.errors import NotRunning, WorkerdError

if TYPE_CHECKING:
    from workerd.settings import Settings

LAG = 1000.0  # milliseconds for which the main loop may be blocked
PATIENCE = 3.0  # seconds
AT_WORK = ("running", "reloading")


def daemon(settings: Settings) -> list[Finding]:
    try:
        return [judge(control.ask(settings.socket_path, "status", limit=PATIENCE))]
    except NotRunning:
        return [ok("daemon", f"none named {settings.name} runs here")]
    except WorkerdError as error:
        found, _, advice = str(error).partition(": ")
        return [problem("daemon", found, advice)]


def judge(said: dict[str, Any]) -> Finding:
    """By what it says of itself."""
    pid, database = said["pid"], said["database"]
    if said["stuck"]:
        found = f"{', '.join(said['stuck'])}: no turn any more (PID {pid})"
        return problem("daemon", found, f"`kill -USR1 {pid}` writes its stacks to the log; then `workerctl restart`")
    if said["state"] in AT_WORK and database["state"] != "connected":
        reason = f": {database['reason']}" if database.get("reason") else ""
        found = f"it takes no jobs, its database is {database['state']} since {database['since']}{reason}"
        return problem("daemon", found, "see the other findings; it goes on by itself when they are mended")
    if said["loop_lag_ms"] > LAG:
        found = f"a handler blocks its loop, for {said['loop_lag_ms'] / 1000:.1f} s by now"
        return warning("daemon", found, "its stack is in `workerctl logs --errors`: make it a plain def, or cpu=True")
    return ok("daemon", f"{said['state']}, PID {pid}, {said['busy']} of {said['workers']} workers busy")
