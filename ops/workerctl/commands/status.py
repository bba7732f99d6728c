"""What a daemon tells about itself: status, health."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workerctl import context, render

if TYPE_CHECKING:
    from workerctl.runtimes.runtime import Runtime

SHOWN = 3  # modules of tasks


def status(
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every second.")] = False,
    runtime: context.RuntimeOption = None,
) -> int:
    """State of the daemon, its workers and what each runs. Exits 3 when it does not run.

    Example: workerctl status --json
    """
    chosen = context.runtime(runtime)
    while True:
        told = chosen.status()
        if watch:
            typer.echo("\x1b[2J\x1b[H", nl=False)
        if as_json:
            render.json(together(told) if told else {"name": chosen.settings.name, "state": "stopped"})
        elif not told:
            database = "; its embedded PostgreSQL runs: workerctl stop ends it" if _has_database(chosen) else ""
            render.say(f"{chosen.settings.name} is stopped ({chosen.name}){database}")
        for each in told if not as_json else ():
            _show(each)
        if not watch:
            return 0 if told else 3
        time.sleep(1)


def _has_database(chosen: Runtime) -> bool:
    if chosen.name != "local" or not chosen.settings.uses_embedded:
        return False
    from workerd import embedded

    return embedded.is_running(chosen.settings.state_dir)


def together(daemons: list[dict[str, Any]]) -> dict[str, Any]:
    """One daemon as it is; several, as containers of one service are, as their sums and one by one below `daemons`."""
    if len(daemons) == 1:
        return daemons[0]
    counts = ("workers", "busy", "jobs_done", "jobs_failed", "rss_bytes")
    sums = {count: sum(each.get(count, 0) for each in daemons) for count in counts}
    states = {each["state"] for each in daemons}
    state = states.pop() if len(states) == 1 else "mixed"
    return {"name": daemons[0]["name"], "runtime": daemons[0]["runtime"], "state": state, **sums, "daemons": daemons}


def _show(told: dict[str, Any]) -> None:
    from workerd.units import format_duration, format_size

    title = f"{told['name']} ({told['runtime']})" + (f" in {told['container']}" if "container" in told else "")
    if "slots" not in told:
        render.details(title, [("state", told["state"]), ("PID", str(told["pid"]))])
        return
    database = told["database"]
    render.details(
        title,
        [
            ("state", told["state"]),
            ("PID", str(told["pid"])),
            ("node", f"{told['node']} ({told['node_id']})"),
            ("up", format_duration(told["uptime_s"])),
            *([("tasks", _brief(told["tasks"]))] if "tasks" in told else []),
            ("workers", f"{told['workers']}, {told['busy']} busy"),
            ("jobs", f"{told['jobs_done']:,} done, {told['jobs_failed']:,} failed"),
            ("memory, CPU", f"{format_size(told['rss_bytes'])}, {told['cpu_percent']:.1f} %"),
            ("loop lag", f"{told['loop_lag_ms']:.1f} ms"),
            *([("no turn any more", ", ".join(told["stuck"]))] if told.get("stuck") else []),
            *([("metrics", told["metrics"])] if told.get("metrics") else []),
            ("database", f"{database['state']} ({database['host']}) since {render.clock(database['since'])}"),
        ],
    )
    rows = [
        (s["worker"], s["state"], s["job_id"] and str(s["job_id"]), s["task"], s["running_s"]) for s in told["slots"]
    ]
    render.table("workers", ("worker", "state", "job", "task", "seconds"), rows[:50])


def _brief(modules: list[str]) -> str:
    return ", ".join(modules[:SHOWN]) + (f" and {len(modules) - SHOWN} more" if len(modules) > SHOWN else "")


def health(
    ready: Annotated[bool, typer.Option("--ready", help="Also needs the database.")] = False,
    runtime: context.RuntimeOption = None,
) -> int:
    """Exit 0 while the daemon's loops turn; with --ready also only while it can claim jobs.

    Example: workerctl health --ready
    """
    chosen = context.runtime(runtime)
    answer = chosen.health()
    good = answer["ready"] if ready else answer["live"]
    name, word = chosen.settings.name, "ready" if ready else "alive"
    render.say(f"{name} is {word}" if good else f"{name} is not {word}: {answer['reason']}")
    return 0 if good else 1
