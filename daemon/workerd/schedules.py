"""Schedules: what is enqueued again and again, as code declares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from workerd import bounds
from workerd.errors import TaskError
from workerd.rule import CatchUp, Rule
from workerd.units import exact_duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from workerd.units import Duration


@dataclass(frozen=True)
class Schedule:
    """Made by `schedule`. `name`: None stands for the task's."""

    rule: Rule
    payload: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    catch_up: CatchUp = "last"
    queue: str | None = None
    priority: int | None = None


def schedule(
    cron: str | None = None,
    /,
    *,
    every: Duration | None = None,
    at: datetime | None = None,
    tz: str = "UTC",
    payload: Mapping[str, Any] | None = None,
    name: str | None = None,
    catch_up: CatchUp = "last",
    queue: str | None = None,
    priority: int | None = None,
) -> Schedule:
    """When a task is to be enqueued: `schedule("0 6 * * mon", tz="Europe/Berlin")`, `schedule(every="90s")`, `schedule(at=…)`.

    `cron` has five fields, or six with seconds first; an interval counts from 1970, so that `15m` is due at :00, :15 and so on.
    `catch_up`: what becomes of times at which no daemon lived: `none`, the `last` of them, or `all` have their job.
    Raises TaskError for a rule that cannot be.
    """
    given = [value for value in (cron, every, at) if value is not None]
    if len(given) != 1:
        raise TaskError("schedule: give one of a cron expression, every= and at=")
    if catch_up not in get_args(CatchUp):
        raise TaskError(f"schedule: catch_up is {catch_up!r}, allowed is {', '.join(get_args(CatchUp))}")
    if name is not None:
        bounds.check_name("schedule: name", name)
    if queue is not None:
        bounds.check_name("schedule: queue", queue)
    if priority is not None:
        bounds.check_whole("schedule: priority", priority, bounds.PRIORITIES)
    if at is not None:
        bounds.check_time("schedule: at", at)
    if payload is not None and not isinstance(payload, Mapping):
        raise TaskError(f"schedule: payload is {payload!r:.80}, allowed is a dict of the arguments of its jobs")
    return Schedule(_rule(cron, every, at, tz), payload or {}, name, catch_up, queue, priority)


def _rule(cron: str | None, every: Duration | None, at: datetime | None, tz: str) -> Rule:
    if cron is not None:
        return Rule("cron", cron, tz)
    if at is not None:
        return Rule("at", at.isoformat(), tz)
    assert every is not None
    try:
        return Rule("every", every if isinstance(every, str) else exact_duration(parse_duration(every)), tz)
    except ValueError as error:
        raise TaskError(f"schedule: every {error}") from error


def named(task: str, schedules: Schedule | Sequence[Schedule] | None) -> dict[str, Schedule]:
    """The schedules of a task by their names. Raises TaskError where two have the same one."""
    listed = [] if schedules is None else [schedules] if isinstance(schedules, Schedule) else list(schedules)
    found = {each.name or task: each for each in listed}
    if len(found) < len(listed):
        raise TaskError(f"task {task}: two of its schedules have the same name: give each a name=")
    return found
