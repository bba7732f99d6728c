"""Errors: which tasks fail, and what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.doctor.finding import Finding, counted, ok, warning
from workerd.queue import failures, inspect

if TYPE_CHECKING:
    from typing import Any

    from workerctl.doctor.ground import Ground

HOURS = 1.0
MANY, SHARE = 5, 0.1  # failed attempts of a task that are worth a warning: so many, and this part of all
TEXT = 120  # characters of an error that are shown


async def errors(ground: Ground) -> list[Finding]:
    """Of the last hour; attempts that were retried count too."""
    tasks = await inspect.tasks(ground.connection, HOURS)
    failing = [each for each in tasks if is_failing(each["succeeded"], each["failed"], each["retried"])]
    if not failing:
        return [ok("errors", f"{counted(sum(each['failed'] for each in tasks), 'job')} failed within the last hour")]
    seen = await failures.failures(ground.connection, HOURS, None)
    return [_failing(task, [each for each in seen if each["task"] == task["task"]]) for task in failing]


def is_failing(succeeded: int, failed: int, retried: int) -> bool:
    """By the attempts of a task."""
    bad = failed + retried
    return bad >= MANY and bad >= SHARE * (succeeded + bad)


def _failing(task: dict[str, Any], alike: list[dict[str, Any]]) -> Finding:
    bad, name = task["failed"] + task["retried"], task["task"]
    found = f"{bad:,} of {task['succeeded'] + bad:,} attempts of {name} failed within the last hour"
    advice = f"see `workerctl jobs errors --task {name}`"
    if alike:
        found += f", {alike[0]['count']:,} alike: {alike[0]['error'][:TEXT]}"
        advice = f"see `workerctl jobs show {alike[0]['example']}`, all others: `workerctl jobs errors --task {name}`"
    return warning("errors", found, advice)
