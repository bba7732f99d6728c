"""What `jobs retry`, `cancel` and `delete` do to one job or to many."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from workerctl import context, render

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workerd.queue.client import Queue
    from workerd.queue.inspect import Filter


async def change(
    done: str, ids: list[int] | None, which: Filter, yes: bool, act: Callable[[Queue, list[int]], Awaitable[list[str]]]
) -> None:
    """Act on the named jobs, or on those that fit after showing how many, in chunks; one that refuses does not stop the others."""
    from workerd.errors import ConfigError, JobError
    from workerd.queue import inspect
    from workerd.queue.change import CHUNK
    from workerd.queue.inspect import Filter

    if not ids and which == Filter():
        raise ConfigError("give ids, or a filter such as --state failed")
    async with context.queue() as queue:
        if not ids:
            async with queue.connection() as connection:
                ids = await inspect.job_ids(connection, which)
            _confirm(len(ids), done, yes)
        ids = list(dict.fromkeys(ids))
        refused = []
        for start in range(0, len(ids), CHUNK):
            refused += await act(queue, ids[start : start + CHUNK])
    render.say(f"{len(ids) - len(refused)} {done}")
    if refused:
        raise JobError(refused[0] if len(refused) == 1 else f"{len(refused)} refused, the first one: {refused[0]}")


async def retry(queue: Queue, job_ids: list[int]) -> list[str]:
    from workerd.queue import change as change_of
    from workerd.queue.change import not_retried

    async with queue.connection() as connection:
        answers = await change_of.retry(connection, job_ids)
    return [refusal for job_id in job_ids if (refusal := not_retried(job_id, answers[job_id])) is not None]


async def cancel(queue: Queue, job_ids: list[int]) -> list[str]:
    from workerd.errors import JobError

    refused = []
    for job_id in job_ids:
        try:
            await queue.cancel(job_id)
        except JobError as error:
            refused.append(str(error))
    return refused


async def delete(queue: Queue, job_ids: list[int]) -> list[str]:
    from workerd.queue import change as change_of

    async with queue.connection() as connection:
        deleted = await change_of.delete(connection, job_ids)
    return [f"job {i} is not finished, or does not exist: cancel it first" for i in job_ids if i not in deleted]


def _confirm(count: int, done: str, yes: bool) -> None:
    from workerd.errors import ConfigError

    render.say(f"{count} jobs fit")
    if not count or yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{count} jobs would be {done}: add --yes")
    typer.confirm(f"{count} jobs will be {done}, go on?", abort=True)
