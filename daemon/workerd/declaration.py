"""What the database is told of tasks, by daemons that reach it and by those that do not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workerd.limit import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workerd.limit import Limit
    from workerd.schedules import Schedule
    from workerd.settings import Settings
    from workerd.tasks import Task


@dataclass(frozen=True)
class Declaration:
    """Of one task: enqueues from anywhere, limits, schedules and notices go by it."""

    name: str
    queue: str = "default"
    priority: int = 0
    max_retries: int = 3
    sensitive: bool = False
    limit: Limit = UNLIMITED
    limit_key: str | None = None
    on_failure: str | None = None
    schedules: Mapping[str, Schedule] = field(default_factory=dict)


@dataclass(frozen=True)
class Declared:
    """Of one daemon. `ttls`: every number of seconds for which an ended job of it may be kept."""

    tasks: list[Declaration]
    ttls: list[float]


def declared(settings: Settings, tasks: Mapping[str, Task[..., Any]]) -> Declared:
    """What a daemon with these settings declares of its tasks."""
    return Declared([declare(task, settings.max_retries) for task in tasks.values()], sorted(ttls(settings, tasks)))


def declare(task: Task[..., Any], max_retries: int) -> Declaration:
    """`max_retries`: for a task that does not say."""
    return Declaration(
        task.name,
        task.queue,
        task.priority,
        max_retries if task.retry.max is None else task.retry.max,
        task.sensitive,
        task.limit,
        task.limit_key,
        task.on_failure,
        task.schedules,
    )


def ttls(settings: Settings, tasks: Mapping[str, Task[..., Any]]) -> set[float]:
    """Every TTL (seconds) with which a job of this node can end."""
    declared = {task.result_ttl for task in tasks.values() if task.result_ttl is not None}
    return {settings.result_ttl, settings.failure_ttl} | declared
