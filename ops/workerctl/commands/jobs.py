"""Jobs: list, show, retry, cancel, delete, wait."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workerctl import context, render

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workerd.queue.client import Queue
    from workerd.queue.inspect import Filter

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

State = Annotated[
    list[str] | None,
    typer.Option("--state", help="queued, running, scheduled, succeeded, failed or cancelled; may be repeated."),
]
QueueName = Annotated[str | None, typer.Option("--queue", help="Only of this queue.")]
TaskName = Annotated[str | None, typer.Option("--task", help="Only of this task.")]
NodeName = Annotated[str | None, typer.Option("--node", help="Only those that this node runs or ran last.")]
Key = Annotated[str | None, typer.Option("--key", help="Only with this key.")]
Older = Annotated[str | None, typer.Option("--older-than", help="Only those enqueued longer ago, e.g. 2d.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]
Ids = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", help="Ids of jobs; without any, a filter is needed.")
]


@app.command("list")
def list_jobs(
    state: State = None, queue: QueueName = None, task: TaskName = None, node: NodeName = None, key: Key = None, older_than: Older = None,
    limit: Annotated[int, typer.Option(min=1, max=100000)] = 50, as_json: Json = False,
) -> None:  # fmt: skip
    """The newest jobs that fit.

    Example: workerctl jobs list --state failed --task ocr_extract
    """
    found = context.run(_list(_filter(state, queue, task, node, key, older_than), limit))
    if as_json:
        render.json(found)
        return
    rows = [
        (
            str(j["id"]),
            j["task"],
            j["queue"],
            j["state"],
            j["attempt"],
            j["progress"] and f"{j['progress']:.0%}",
            render.brief(j["enqueued_at"]),
            render.first_line(j["error"])[:80],
        )
        for j in found
    ]
    render.table(
        f"jobs ({len(found)})", ("id", "task", "queue", "state", "attempt", "progress", "enqueued", "error"), rows
    )


@app.command()
def show(
    job_id: Annotated[int | None, typer.Argument(metavar="[ID]")] = None, key: Key = None, as_json: Json = False
) -> None:
    """One job: arguments, result, error, every attempt.

    Example: workerctl jobs show 42
    """
    from workerd.errors import ConfigError

    if (job_id is None) == (key is None):
        raise ConfigError("give the job's id, or --key")
    job = context.run(_show(job_id, key))
    if as_json:
        render.json(job)
        return
    hidden = ("attempts", "error", "message")
    render.details(
        f"job {job['id']}",
        [(name, _text(value)) for name, value in job.items() if name not in hidden and value is not None],
    )
    rows = [
        (a["attempt"], a["node"], render.brief(a["started_at"]), render.brief(a["ended_at"]), a["outcome"], a["error"])
        for a in job["attempts"]
    ]
    render.table("attempts", ("attempt", "node", "started", "ended", "outcome", "error"), rows)


@app.command()
def retry(
    ids: Ids = None, state: State = None, queue: QueueName = None, task: TaskName = None, node: NodeName = None, key: Key = None,
    older_than: Older = None, yes: Yes = False,
) -> None:  # fmt: skip
    """Queue failed, cancelled or scheduled jobs now.

    Example: workerctl jobs retry --state failed --task ocr_extract
    """
    context.run(_each("retried", ids, _filter(state, queue, task, node, key, older_than), yes, lambda q, i: q.retry(i)))


@app.command()
def cancel(
    ids: Ids = None, state: State = None, queue: QueueName = None, task: TaskName = None, node: NodeName = None, key: Key = None,
    older_than: Older = None, yes: Yes = False,
) -> None:  # fmt: skip
    """Cancel jobs that are not finished; running ones are told to stop.

    Example: workerctl jobs cancel 42 43
    """
    context.run(
        _each("cancelled", ids, _filter(state, queue, task, node, key, older_than), yes, lambda q, i: q.cancel(i))
    )


@app.command()
def delete(
    ids: Ids = None, state: State = None, queue: QueueName = None, task: TaskName = None, node: NodeName = None, key: Key = None,
    older_than: Older = None, yes: Yes = False,
) -> None:  # fmt: skip
    """Remove finished jobs from the history.

    Example: workerctl jobs delete --state cancelled --older-than 7d
    """
    context.run(_each("deleted", ids, _filter(state, queue, task, node, key, older_than), yes, _delete))


@app.command()
def wait(
    job_id: Annotated[int, typer.Argument(metavar="ID")],
    timeout: Annotated[str | None, typer.Option(help="Give up after, e.g. 30s.")] = None,
) -> int:
    """Wait until a job is finished and print its result; exits 0 only when it succeeded.

    Example: workerctl jobs wait 42 --timeout 1m
    """
    from workerd.errors import ConfigError, WorkerdError
    from workerd.units import parse_duration

    try:
        seconds = None if timeout is None else parse_duration(timeout)
    except ValueError as error:
        raise ConfigError(f"--timeout {error}") from None
    try:
        render.json(context.run(_wait(job_id, seconds)))
    except TimeoutError:
        raise WorkerdError(f"job {job_id} is not finished after {timeout}") from None
    return 0


def _filter(
    state: list[str] | None, queue: str | None, task: str | None, node: str | None, key: str | None, older_than: str | None
) -> Filter:  # fmt: skip
    from workerd.errors import ConfigError
    from workerd.queue.inspect import STATES, Filter
    from workerd.units import parse_duration

    for each in state or ():
        if each not in STATES:
            raise ConfigError(f"--state is {each!r}, allowed are {', '.join(STATES)}")
    try:
        age = None if older_than is None else parse_duration(older_than)
    except ValueError as error:
        raise ConfigError(f"--older-than {error}") from None
    return Filter(tuple(state or ()), queue, task, node, key, age)


async def _list(which: Filter, limit: int) -> list[dict[str, Any]]:
    from workerd.queue import inspect

    async with context.queue() as queue, queue.connection() as connection:
        return await inspect.jobs(connection, which, limit)


async def _show(job_id: int | None, key: str | None) -> dict[str, Any]:
    from workerd.errors import JobError
    from workerd.queue import inspect

    async with context.queue() as queue, queue.connection() as connection:
        if job_id is None and key is not None:
            job_id = await inspect.id_of_key(connection, key)
        found = None if job_id is None else await inspect.job(connection, job_id)
    if found is None:
        raise JobError(
            f"there is no job {f'with the key {key}' if job_id is None else job_id} (never enqueued, or past its TTL)"
        )
    return found


async def _wait(job_id: int, timeout: float | None) -> Any:
    async with context.queue() as queue:
        return await queue.result(job_id, timeout)


async def _delete(queue: Queue, job_id: int) -> str:
    from workerd.errors import JobError
    from workerd.queue import inspect

    async with queue.connection() as connection:
        if not await inspect.delete(connection, job_id):
            raise JobError(f"job {job_id} is not finished, or does not exist: cancel it first")
    return "deleted"


async def _each(
    done: str, ids: list[int] | None, which: Filter, yes: bool, act: Callable[[Queue, int], Awaitable[str]]
) -> None:
    """Act on the named jobs, or on those that fit after showing how many; one that refuses does not stop the others."""
    from workerd.errors import ConfigError, JobError
    from workerd.queue import inspect
    from workerd.queue.inspect import Filter

    if not ids and which == Filter():
        raise ConfigError("give ids, or a filter such as --state failed")
    async with context.queue() as queue:
        if not ids:
            async with queue.connection() as connection:
                ids = await inspect.job_ids(connection, which)
            _confirm(len(ids), done, yes)
        refused = []
        for job_id in ids:
            try:
                await act(queue, job_id)
            except JobError as error:
                refused.append(str(error))
    render.say(f"{len(ids) - len(refused)} {done}")
    if refused:
        raise JobError(refused[0] if len(refused) == 1 else f"{len(refused)} refused, the first one: {refused[0]}")


def _confirm(count: int, done: str, yes: bool) -> None:
    from workerd.errors import ConfigError

    render.say(f"{count} jobs fit")
    if not count or yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{count} jobs would be {done}: add --yes")
    typer.confirm(f"{count} jobs will be {done}, go on?", abort=True)


def _text(value: object) -> str:
    from workerd import codec

    return codec.dumps(value, "a value") if isinstance(value, (dict, list)) else str(value)
