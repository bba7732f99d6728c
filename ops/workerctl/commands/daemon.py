"""The daemon's life: start, stop, restart, reload, run, scale, status, health."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workerctl import context, render

if TYPE_CHECKING:
    from workerd.config import Settings

Runtime = Annotated[str, typer.Option(help="local is the only runtime of this version.")]
LOOSE = {"ignore_unknown_options": True}  # so that -1 reaches the check of N


def _count(text: str | None, option: str | None) -> None:
    """Take N into the settings. Raises ConfigError unless it is a number of workers."""
    from workerd.errors import ConfigError

    given = text if text is not None else option
    if given is None:
        return
    if not re.fullmatch(r"\d+|auto", given) or (given.isdigit() and not 1 <= int(given) <= 10000):
        raise ConfigError(f"the number of workers is {given!r}, allowed is 1 to 10000 or auto")
    context.set_flag("workers", given)


def _local(runtime: str) -> None:
    from workerd.errors import ConfigError

    if runtime != "local":
        raise ConfigError(f"--runtime is {runtime!r}, this version knows only local")


def start(
    n: Annotated[str | None, typer.Argument(metavar="[N]", help="Number of workers.")] = None,
    count: Annotated[str | None, typer.Option("-c", "--count", help="Number of workers, like N.")] = None,
    detach: Annotated[bool, typer.Option("-d", "--daemon", help="In the background, as always.")] = True,
    monitor: Annotated[
        str | None, typer.Option("-m", help="How often the daemon logs its own figures, e.g. 30.")
    ] = None,
    runtime: Runtime = "local",
) -> None:
    """Start the daemon in the background and return when it is ready.

    Example: workerctl start 4 --tasks myapp.tasks
    """
    from workerctl.runtimes import local

    _local(runtime)
    _count(n, count)
    if monitor is not None:
        context.set_flag("monitor", monitor)
    settings = context.settings()
    pid = local.pid_of(settings)
    if pid is not None:
        render.say(f"{settings.name} runs already (local, PID {pid}); nothing changed")
        return
    _start(settings)


def _start(settings: Settings) -> None:
    from workerctl.runtimes import local

    began = time.monotonic()
    pid = local.start(settings, context.flags())
    render.say(
        f"{settings.name} started (local, PID {pid}) with {settings.workers} workers, ready after {time.monotonic() - began:.1f} s"
    )


def stop(
    timeout: Annotated[str | None, typer.Option(help="How long running jobs may take to end, e.g. 2m.")] = None,
    now: Annotated[bool, typer.Option("--now", help="Cancel running jobs and give them back at once.")] = False,
    runtime: Runtime = "local",
) -> None:
    """Drain the daemon and stop it, and the embedded database when nobody else uses it.

    Example: workerctl stop --timeout 2m
    """
    from workerd.errors import NotRunning

    _local(runtime)
    settings = context.settings()
    ran = _stop(settings, timeout, now=now)
    stopped = _stop_database(settings)
    if not ran and not stopped:
        raise NotRunning(f"no daemon named {settings.name} runs here")


def _stop(settings: Settings, timeout: str | None, *, now: bool) -> bool:
    from workerctl.runtimes import local
    from workerd.errors import ConfigError, NotRunning
    from workerd.units import parse_duration

    try:
        seconds = None if timeout is None else parse_duration(timeout)
    except ValueError as error:
        raise ConfigError(f"--timeout {error}") from None
    try:
        local.stop(settings, seconds, now=now)
    except NotRunning:
        return False
    render.say(f"{settings.name} stopped")
    return True


def _stop_database(settings: Settings) -> bool:
    """Stop the embedded database if it is ours and unused; whether it was stopped."""
    if settings.database_url is not None:
        return False
    from workerd import embedded

    if not embedded.is_running(settings.state_dir):
        return False
    if embedded.stop_if_unused(settings.state_dir):
        render.say("embedded PostgreSQL stopped")
        return True
    render.say("embedded PostgreSQL left running: others are connected to it")
    return False


def restart(
    n: Annotated[str | None, typer.Argument(metavar="[N]", help="Number of workers.")] = None,
    runtime: Runtime = "local",
) -> None:
    """Drain and stop the daemon, then start it; starts it when it did not run.

    Example: workerctl restart 8
    """
    _local(runtime)
    _count(n, None)
    settings = context.settings()
    _stop(settings, None, now=False)
    _start(settings)


def reload(runtime: Runtime = "local") -> None:
    """Hand over to a new process that runs the code and settings of now; at no moment does nobody claim.

    Returns when the new one claims. The old one ends when its jobs have. Where the new one does not start, the old one goes on.

    Example: workerctl reload
    """
    from workerctl.runtimes import local

    _local(runtime)
    settings = context.settings()
    began = time.monotonic()
    before, after = local.reload(settings)
    render.say(
        f"{settings.name} reloaded (local): PID {after} took over from {before}, after {time.monotonic() - began:.1f} s"
    )


def run(
    name: Annotated[str | None, typer.Option("-n", help="Name of the daemon.")] = None,
    verbose: Annotated[bool, typer.Option("-v", help="Debug logging.")] = False,
) -> None:
    """Run the daemon in the foreground, with one worker unless told otherwise.

    Example: workerctl run -v --tasks myapp.tasks
    """
    if name is not None:
        context.set_flag("name", name)
    if verbose:
        context.set_flag("log_level", "DEBUG")
    if context.configuration().sources["workers"] == "default":
        context.set_flag("workers", "1")
    os.execv(sys.executable, [sys.executable, "-m", "workerd", *context.flags()])  # noqa: S606 - no shell wanted


def scale(
    n: Annotated[str, typer.Argument(metavar="N", help="Number of workers.")], runtime: Runtime = "local"
) -> None:
    """Change the number of workers of the running daemon; no job is interrupted.

    Example: workerctl scale 8
    """
    from workerctl import control

    _local(runtime)
    _count(n, None)
    settings = context.settings()
    answer = control.ask(settings.socket_path, "scale", workers=settings.workers)
    render.say(f"{settings.name}: {answer['workers']} workers (were {answer['before']})")


def status(
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every second.")] = False,
    runtime: Runtime = "local",
) -> int:
    """State of the daemon, its workers and what each runs. Exits 3 when it does not run.

    Example: workerctl status --json
    """
    from workerctl.runtimes import local

    _local(runtime)
    settings = context.settings()
    while True:
        told = local.status(settings)
        if watch:
            typer.echo("\x1b[2J\x1b[H", nl=False)
        if as_json:
            render.json(told or {"name": settings.name, "state": "stopped"})
        elif told is None:
            render.say(f"{settings.name} is stopped")
        else:
            _show(told)
        if not watch:
            return 0 if told else 3
        time.sleep(1)


def _show(told: dict[str, Any]) -> None:
    from workerd.units import format_duration, format_size

    if "slots" not in told:
        render.details(f"{told['name']} (local)", [("state", told["state"]), ("PID", str(told["pid"]))])
        return
    database = told["database"]
    render.details(f"{told['name']} (local)", [
        ("state", told["state"]),
        ("PID", str(told["pid"])),
        ("node", f"{told['node']} ({told['node_id']})"),
        ("up", format_duration(told["uptime_s"])),
        ("workers", f"{told['workers']}, {told['busy']} busy"),
        ("jobs", f"{told['jobs_done']:,} done, {told['jobs_failed']:,} failed"),
        ("memory, CPU", f"{format_size(told['rss_bytes'])}, {told['cpu_percent']:.1f} %"),
        ("loop lag", f"{told['loop_lag_ms']:.1f} ms"),
        ("database", f"{database['state']} ({database['host']}) since {render.brief(database['since'])}"),
    ])  # fmt: skip
    rows = [
        (s["worker"], s["state"], s["job_id"] and str(s["job_id"]), s["task"], s["running_s"]) for s in told["slots"]
    ]
    render.table("workers", ("worker", "state", "job", "task", "seconds"), rows[:50])


def health(ready: Annotated[bool, typer.Option("--ready", help="Also needs the database.")] = False) -> int:
    """Exit 0 while the daemon's loops turn; with --ready also only while it can claim jobs.

    Example: workerctl health --ready
    """
    from workerctl import control

    settings = context.settings()
    answer = control.ask(settings.socket_path, "health")
    good = answer["ready"] if ready else answer["live"]
    render.say(f"{settings.name} is {'ready' if ready else 'alive'}" if good else f"{settings.name} is not ready")
    return 0 if good else 1


start.context_settings = LOOSE  # type: ignore[attr-defined] # read by the command table
scale.context_settings = LOOSE  # type: ignore[attr-defined]
restart.context_settings = LOOSE  # type: ignore[attr-defined]
commands = (start, stop, restart, reload, run, scale, status, health)
