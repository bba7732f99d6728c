"""`on_failure`: the task that is told when a job of another one has failed for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workerd.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workerd.tasks import Task

FIELDS = ("job_id", "task", "payload", "error", "attempt")  # the arguments of who is told


def check(tasks: Mapping[str, Task[..., Any]]) -> None:
    """Raises TaskError where a task that is told does not take what it is told, or would in the end be told of itself."""
    for task in tasks.values():
        told = tasks.get(task.on_failure or "")
        if told is not None:
            try:
                told.arguments.signature.bind(**dict.fromkeys(FIELDS))
            except TypeError as error:
                raise TaskError(
                    f"task {told.name} is the on_failure of {task.name}, so its arguments are {', '.join(FIELDS)}: {error}"
                ) from error
    refuse_circles({task.name: task.on_failure for task in tasks.values()})


def refuse_circles(on_failure: Mapping[str, str | None]) -> None:
    """Raises TaskError for tasks of which each is told of the next one's failures, without an end."""
    for start in on_failure:
        path, told = [start], on_failure[start]
        while told is not None and told not in path:
            path.append(told)
            told = on_failure.get(told)
        if told == start:
            raise TaskError(
                f"on_failure goes in a circle, one failure would have notices without end: {' -> '.join([*path, start])}"
            )
