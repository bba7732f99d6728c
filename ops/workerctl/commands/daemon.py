"""The daemon's life: start, stop, restart, reload, run, scale."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from workerctl import context, render
from workerctl.usage import Counting

if TYPE_CHECKING:
    from workerctl.runtimes.runtime import Runtime
    from workerd.config import Settings


def _count(text: str | None, option: str | None) -> None:
    """Take N into the settings. Raises ConfigError unless it is a number of workers."""
    from workerd.errors import ConfigError

    given = text if text is not None else option
    if given is None:
        return
    if not re.fullmatch(r"\d+|auto", given) or (given.isdigit() and not 1 <= int(given) <= 10000):
        raise ConfigError(f"the number of workers is {given!r}, allowed is 1 to 10000 or auto")
    context.set_flag("workers", given)


def start(
    n: Annotated[
        str | None, typer.Argument(metavar="[N]", help="Number of workers; with Docker of containers.")
    ] = None,
    count: Annotated[str | None, typer.Option("-c", "--count", help="Number of workers, like N.")] = None,
    detach: Annotated[bool, typer.Option("-d", "--daemon", help="In the background, as always.")] = True,
    monitor: Annotated[
        str | None, typer.Option("-m", help="How often the daemon logs its own figures, e.g. 30.")
    ] = None,
    runtime: context.RuntimeOption = None,
) -> None:
    """Start the daemon in the background and return when it is ready.

    Example: workerctl start 4 --tasks myapp.tasks
    """
    from workerctl.commands import started

    _count(n, count)
    if monitor is not None:
        context.set_flag("monitor", monitor)
    chosen = context.runtime(runtime)
    who = chosen.who()
    if who is not None:
        render.say(f"{chosen.settings.name} runs already ({chosen.name}, {who}); nothing changed")
        started.compare(chosen)
        return
    _start(chosen)


def _start(chosen: Runtime) -> None:
    began = time.monotonic()
    chosen.start(chosen.settings.workers if context.given("workers") else None)
    took = time.monotonic() - began
    render.say(f"{chosen.settings.name} started ({chosen.name}, {chosen.who()}), ready after {took:.1f} s")


def stop(
    timeout: Annotated[str | None, typer.Option(help="How long running jobs may take to end, e.g. 2m.")] = None,
    now: Annotated[bool, typer.Option("--now", help="Cancel running jobs and give them back at once.")] = False,
    runtime: context.RuntimeOption = None,
) -> None:
    """Drain the daemon and stop it, and the embedded database when nobody else uses it.

    Example: workerctl stop --timeout 2m
    """
    from workerd.errors import NotRunning

    chosen = context.runtime(runtime)
    ran = _stop(chosen, timeout, now=now)
    stopped = chosen.name == "local" and _stop_database(chosen.settings)
    if not ran and not stopped:
        raise NotRunning(f"no daemon named {chosen.settings.name} runs here ({chosen.name})")


def _stop(chosen: Runtime, timeout: str | None, *, now: bool) -> bool:
    from workerd.errors import ConfigError, NotRunning
    from workerd.units import parse_duration

    try:
        seconds = None if timeout is None else parse_duration(timeout)
    except ValueError as error:
        raise ConfigError(f"--timeout {error}") from None
    keeper = chosen.keeper()
    try:
        chosen.stop(seconds, now=now)
    except NotRunning:
        return False
    whose = "" if keeper is None else f"; it is {keeper.name}'s: `{keeper.order('start')}` starts it"
    render.say(f"{chosen.settings.name} stopped ({chosen.name}){whose}")
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
    runtime: context.RuntimeOption = None,
) -> None:
    """Drain and stop the daemon, then start it; starts it when it did not run.

    A running local daemon keeps the flags it was started with; flags given now win, N changes the number alone. Files and environment
    are read anew. In another folder than it was started in, nothing is kept: that folder's settings are in force.

    Example: workerctl restart 8
    """
    from workerctl.commands import started
    from workerd.errors import WorkerdError

    _count(n, None)
    chosen = context.runtime(runtime)
    keeper = chosen.keeper()
    if keeper is not None:
        raise WorkerdError(
            f"{chosen.settings.name} is {keeper.name}'s: `{keeper.order('restart')}`, or `workerctl reload`, which interrupts nothing"
        )
    if started.keep(chosen):
        chosen = context.runtime(runtime)
    _stop(chosen, None, now=False)
    _start(chosen)


def reload(runtime: context.RuntimeOption = None) -> None:
    """Hand over to a new process that runs the code and settings of now; at no moment does nobody claim.

    Returns when the new one claims. The old one ends when its jobs have. Where the new one does not start, the old one goes on.

    Example: workerctl reload
    """
    chosen = context.runtime(runtime)
    began = time.monotonic()
    outcome = chosen.reload()
    took = time.monotonic() - began
    render.say(f"{chosen.settings.name} reloaded ({chosen.name}): {outcome}, after {took:.1f} s")


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
    n: Annotated[str, typer.Argument(metavar="N", help="Number of workers; with Docker of containers.")],
    runtime: context.RuntimeOption = None,
) -> None:
    """Change the number of workers of the running daemon; no job is interrupted.

    Under systemd too: workers within the unit, until its next start. More daemons are more instances: systemctl start invoice-worker@2.

    Example: workerctl scale 8
    """
    _count(n, None)
    chosen = context.runtime(runtime)
    render.say(f"{chosen.settings.name} ({chosen.name}): {chosen.scale(chosen.settings.workers)}")


start.cls = Counting  # type: ignore[attr-defined] # read by the command table
scale.cls = Counting  # type: ignore[attr-defined]
restart.cls = Counting  # type: ignore[attr-defined]
