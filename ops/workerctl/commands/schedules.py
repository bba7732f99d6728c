"""Schedules: list, set, run, pause, resume, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from workerctl import context, render
from workerctl.commands.enqueue import iso_time, json_object

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from workerd.job import AnyConnection

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="SCHEDULE")]
AHEAD = 3  # due times that scripts are told


@app.command("list")
def list_schedules(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """All schedules, and when they are due next.

    Example: workerctl schedules list
    """
    from workerd.queue import schedules

    found = context.run(_with(lambda connection: schedules.find(connection, AHEAD)))
    if as_json:
        render.json(found)
        return
    rows = [(s["name"], s["task"], _next(s), s["words"], s["catch_up"]) for s in found]
    render.table("schedules", ("name", "task", "next", "rule", "catch-up"), rows)


@app.command("set")
def set_schedule(
    name: Name,
    task: Annotated[str, typer.Argument(metavar="TASK")],
    cron: Annotated[str | None, typer.Option(help="Five fields, or six with seconds first.")] = None,
    every: Annotated[str | None, typer.Option(help="An interval, e.g. 90s or 2h.")] = None,
    at: Annotated[str | None, typer.Option(help="Once, at an ISO time with zone.")] = None,
    tz: Annotated[str, typer.Option(help="Time zone of the cron rule.")] = "UTC",
    payload: Annotated[str, typer.Option(metavar="JSON", help="Arguments.")] = "{}",
    queue: Annotated[str | None, typer.Option(help="Queue instead of the task's.")] = None,
    priority: Annotated[int | None, typer.Option(help="Priority instead of the task's.")] = None,
    catch_up: Annotated[str, typer.Option(help="Jobs for due times that were missed: none, last or all.")] = "last",
) -> None:
    """Make a schedule, or change it; in force within a second.

    Example: workerctl schedules set weekly report --cron "0 6 * * mon" --tz Europe/Berlin
    """
    from workerd.queue import schedules
    from workerd.schedules import schedule

    arguments: dict[str, Any] = {"payload": json_object(payload, "the payload"), "queue": queue, "priority": priority}
    wanted = schedule(cron, every=every, at=iso_time(at), tz=tz, catch_up=catch_up, **arguments)  # type: ignore[arg-type]  # it is checked there
    context.run(_with(lambda connection: schedules.put(connection, name, task, wanted)))
    render.say(f"{name}: {task}, {wanted.rule.words}")


@app.command()
def run(name: Name) -> None:
    """Enqueue its job now and print the id; due times stay as they are.

    Example: workerctl schedules run weekly
    """
    from workerd.queue import schedules

    render.say(str(context.run(_with(lambda connection: schedules.run(connection, name)))))


@app.command()
def pause(name: Name) -> None:
    """Enqueue nothing by it until it is resumed.

    Example: workerctl schedules pause weekly
    """
    from workerd.queue import schedules

    context.run(_with(lambda connection: schedules.pause(connection, name)))
    render.say(f"{name} is paused")


@app.command()
def resume(name: Name) -> None:
    """Go on from now; due times of the pause have no jobs.

    Example: workerctl schedules resume weekly
    """
    from workerd.queue import schedules

    context.run(_with(lambda connection: schedules.resume(connection, name)))
    render.say(f"{name} is served again")


@app.command()
def remove(name: Name) -> None:
    """Forget a schedule that was set by command; jobs that it has enqueued stay.

    Example: workerctl schedules remove weekly
    """
    from workerd.queue import schedules

    context.run(_with(lambda connection: schedules.remove(connection, name)))
    render.say(f"{name} is removed")


async def _with(act: Callable[[AnyConnection], Awaitable[Any]]) -> Any:
    async with context.queue() as queue, queue.connection() as connection:
        return await act(connection)


def _next(schedule: dict[str, Any]) -> str:
    """When it is due, in words."""
    if schedule["paused"]:
        return "paused"
    if not schedule["next"]:
        return "never again"
    return _in_words(schedule["next"][0], schedule["tz"])


def _in_words(moment: datetime | str, tz: str) -> str:
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    from workerd.units import format_duration

    if isinstance(moment, str):  # beyond the calendar
        return moment
    left = max(0.0, (moment - datetime.now(UTC)).total_seconds())
    return f"in {format_duration(round(left))}, {moment.astimezone(ZoneInfo(tz)):%a %d %b %H:%M:%S}"
