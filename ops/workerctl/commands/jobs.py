"""Jobs: list, show, retry, cancel, delete, wait, signal."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workerctl import context, render
from workerctl.commands import job_changes, job_view

if TYPE_CHECKING:
    from workerd.queue.inspect import Filter

EDGES = 60  # between the jobs around one that are drawn

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
Print = Annotated[str | None, typer.Option("--fingerprint", help="Only those that failed so last: see jobs errors.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]
Ids = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", help="Ids of jobs; without any, a filter is needed.")
]


@app.command("list")
def list_jobs(
    state: State = None,
    queue: QueueName = None,
    task: TaskName = None,
    node: NodeName = None,
    key: Key = None,
    older_than: Older = None,
    fingerprint: Print = None,
    limit: Annotated[int, typer.Option(min=1, max=100000)] = 50,
    as_json: Json = False,
) -> None:
    """The newest jobs that fit.

    Example: workerctl jobs list --state failed --task ocr_extract
    """
    found = context.run(_list(_filter(state, queue, task, node, key, older_than, fingerprint), limit))
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
            render.clock(j["enqueued_at"]),
            render.first_line(j["error"]),
        )
        for j in found
    ]
    render.table(
        f"jobs ({len(found)})",
        ("id", "task", "queue", "state", "attempt", "progress", "enqueued", "error"),
        rows,
        cut=True,
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
    job_view.show(job)


@app.command()
def errors(
    hours: Annotated[float, typer.Option(min=0.01, max=87600, help="How far to look back.")] = 24.0,
    task: TaskName = None,
    as_json: Json = False,
) -> None:
    """Failed attempts, those that failed alike together: how often, first and last seen, an example.

    Example: workerctl jobs errors --hours 1
    """
    found = context.run(_errors(hours, task))
    if as_json:
        render.json(found)
        return
    rows = [
        (
            e["fingerprint"],
            e["count"],
            str(e["example"]),
            e["task"],
            render.clock(e["first_seen"]),
            render.clock(e["last_seen"]),
            e["error"],
        )
        for e in found
    ]
    render.table(
        f"failed attempts ({sum(e['count'] for e in found):,})",
        ("fingerprint", "count", "example", "task", "first", "last", "error"),
        rows,
        cut=True,
    )


@app.command()
def retry(
    ids: Ids = None,
    state: State = None,
    queue: QueueName = None,
    task: TaskName = None,
    node: NodeName = None,
    key: Key = None,
    older_than: Older = None,
    fingerprint: Print = None,
    yes: Yes = False,
) -> None:
    """Queue failed, cancelled or scheduled jobs now.

    Example: workerctl jobs retry --state failed --task ocr_extract
    """
    context.run(
        job_changes.change(
            "retried", ids, _filter(state, queue, task, node, key, older_than, fingerprint), yes, job_changes.retry
        )
    )


@app.command()
def cancel(
    ids: Ids = None,
    state: State = None,
    queue: QueueName = None,
    task: TaskName = None,
    node: NodeName = None,
    key: Key = None,
    older_than: Older = None,
    fingerprint: Print = None,
    yes: Yes = False,
) -> None:
    """Cancel jobs that are not finished; running ones are told to stop.

    Example: workerctl jobs cancel 42 43
    """
    context.run(
        job_changes.change(
            "cancelled", ids, _filter(state, queue, task, node, key, older_than, fingerprint), yes, job_changes.cancel
        )
    )


@app.command()
def delete(
    ids: Ids = None,
    state: State = None,
    queue: QueueName = None,
    task: TaskName = None,
    node: NodeName = None,
    key: Key = None,
    older_than: Older = None,
    fingerprint: Print = None,
    yes: Yes = False,
) -> None:
    """Remove finished jobs from the history.

    Example: workerctl jobs delete --state cancelled --older-than 7d
    """
    context.run(
        job_changes.change(
            "deleted", ids, _filter(state, queue, task, node, key, older_than, fingerprint), yes, job_changes.delete
        )
    )


@app.command()
def wait(
    job_id: Annotated[int, typer.Argument(metavar="ID")],
    timeout: Annotated[str | None, typer.Option(help="Give up after, e.g. 30s.")] = None,
) -> int:
    """Wait until a job is finished and print its result; exits 0 only when it succeeded.

    After 2 s a line on standard error says so where no living node takes it.

    Example: workerctl jobs wait 42 --timeout 1m
    """
    from workerctl.commands import job_wait
    from workerd.errors import ConfigError, WorkerdError
    from workerd.units import parse_duration

    try:
        seconds = None if timeout is None else parse_duration(timeout)
    except ValueError as error:
        raise ConfigError(f"--timeout {error}") from None
    try:
        render.json(context.run(job_wait.result(job_id, seconds)))
    except TimeoutError:
        raise WorkerdError(f"job {job_id} is not finished after {timeout}") from None
    return 0


@app.command()
def edit(
    job_id: Annotated[int, typer.Argument(metavar="ID")],
    payload: Annotated[str | None, typer.Option(metavar="JSON", help="Other arguments.")] = None,
    queue: Annotated[str | None, typer.Option(help="Another queue.")] = None,
    priority: Annotated[int | None, typer.Option(help="Another priority.")] = None,
    delay: Annotated[str | None, typer.Option(help="Start not before, e.g. 5m from now; 0 is now.")] = None,
    run_at: Annotated[str | None, typer.Option(help="Start not before, as an ISO time with zone.")] = None,
) -> None:
    """Change a job that has not started.

    Example: workerctl jobs edit 42 --priority 10 --delay 0
    """
    from workerctl.commands import enqueue
    from workerd.errors import ConfigError

    options = {
        "payload": None if payload is None else enqueue.json_object(payload, "the payload"),
        "queue": queue,
        "priority": priority,
        "delay": delay,
        "run_at": enqueue.iso_time(run_at),
    }
    if all(value is None for value in options.values()):
        raise ConfigError("nothing to change: give --payload, --queue, --priority, --delay or --run-at")
    render.say(f"job {job_id}, which was {context.run(_edit(job_id, options))}, is changed")


@app.command()
def signal(
    job_id: Annotated[int, typer.Argument(metavar="ID")],
    event: Annotated[str, typer.Argument(metavar="EVENT", help="What the job waits for.")],
    payload: Annotated[str, typer.Argument(metavar="[JSON]", help="What it is told.")] = "null",
) -> None:
    """Answer a job that waits for an event; the first answer holds.

    Example: workerctl jobs signal 42 approved '{"by": "Ada"}'
    """
    from workerd import codec
    from workerd.errors import ConfigError, JobError, PayloadError

    try:
        value = codec.read(payload)
    except PayloadError as error:
        said = str(error)
        raise ConfigError(f"the payload {said}" if said.startswith("has ") else f"the payload is {said}") from None
    if not context.run(_signal(job_id, event, value)):
        raise JobError(f"job {job_id} was told {event} before: that answer holds")
    render.say(f"job {job_id} is told {event}")


def _filter(
    state: list[str] | None,
    queue: str | None,
    task: str | None,
    node: str | None,
    key: str | None,
    older_than: str | None,
    fingerprint: str | None,
) -> Filter:
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
    return Filter(tuple(state or ()), queue, task, node, key, age, fingerprint)


async def _list(which: Filter, limit: int) -> list[dict[str, Any]]:
    from workerd.queue import inspect

    async with context.queue() as queue, queue.connection() as connection:
        return await inspect.jobs(connection, which, limit)


async def _show(job_id: int | None, key: str | None) -> dict[str, Any]:
    from workerd.errors import JobError
    from workerd.queue import dependency, inspect, job_log, steps

    async with context.queue() as queue, queue.connection() as connection:
        if job_id is None and key is not None:
            job_id = await inspect.id_of_key(connection, key)
        found = None if job_id is None else await inspect.job(connection, job_id)
        lines = [] if found is None else await job_log.lines_of(connection, found["id"])
        done = [] if found is None else await steps.steps_of(connection, found["id"])
        graph = None if found is None else await dependency.graph(connection, found["id"], EDGES)
    if found is None:
        raise JobError(
            f"there is no job {f'with the key {key}' if job_id is None else job_id} (never enqueued, or past its TTL)"
        )
    return {**found, "steps": done, "log": lines, "graph": None if graph is None else asdict(graph)}


async def _edit(job_id: int, options: dict[str, Any]) -> str:
    async with context.queue() as queue:
        return await queue.change(job_id, **options)


async def _errors(hours: float, task: str | None) -> list[dict[str, Any]]:
    from workerd.queue import failures

    async with context.queue() as queue, queue.connection() as connection:
        return await failures.failures(connection, hours, task)


async def _signal(job_id: int, event: str, payload: Any) -> bool:
    async with context.queue() as queue:
        return await queue.signal(job_id, event, payload)
