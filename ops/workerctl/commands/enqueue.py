"""Enqueue jobs from the command line."""

from __future__ import annotations

import contextlib
import difflib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workerctl import context, render

if TYPE_CHECKING:
    from workerd.queue.client import Queue

EXPECTED = 'a JSON object of the task\'s arguments, such as \'{"path": "a.pdf"}\''
CHUNK = 1000  # jobs of standard input enqueued in one transaction


def enqueue(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Name of the task.")],
    payload: Annotated[
        str,
        typer.Argument(
            metavar="[JSON]", help="Arguments as a JSON object; - reads one object a line from standard input."
        ),
    ] = "{}",
    queue: Annotated[str | None, typer.Option(help="Queue instead of the task's.")] = None,
    priority: Annotated[int | None, typer.Option(help="Priority instead of the task's; higher runs first.")] = None,
    delay: Annotated[str | None, typer.Option(help="Start not before, e.g. 5m.")] = None,
    run_at: Annotated[str | None, typer.Option(help="Start not before, as an ISO time with zone.")] = None,
    key: Annotated[str | None, typer.Option(help="No second job while one with this key is not finished.")] = None,
    after: Annotated[
        list[int] | None, typer.Option(metavar="ID", help="A job that has to succeed first; may be repeated.")
    ] = None,
    deadline: Annotated[str | None, typer.Option(help="Do not start after, e.g. 1h.")] = None,
    pin: Annotated[str | None, typer.Option(metavar="NODE", help="The node that is to run it.")] = None,
    prefer: Annotated[str | None, typer.Option(metavar="NODE", help="The node that may have it first.")] = None,
    conflict: Annotated[
        str | None, typer.Option(help="What becomes of a waiting job with the key: keep, replace, reschedule.")
    ] = None,
    key_until: Annotated[str | None, typer.Option(help="The key is free when the job is finished, or started.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Enqueue a job and print its id; --max-retries N gives it other retries than its task.

    Example: workerctl enqueue ocr_extract '{"path": "a.pdf"}' --delay 5m --key a.pdf
    """
    options = {
        "queue": queue,
        "priority": priority,
        "delay": delay,
        "run_at": iso_time(run_at),
        "max_retries": context.settings().max_retries if context.given("max_retries") else None,
        "after": after or None,
        "deadline": deadline,
        "pin": pin,
        "prefer": prefer,
        "conflict": conflict,
        "key_until": key_until,
    }
    if payload == "-":
        if key is not None:
            from workerd.errors import ConfigError

            raise ConfigError("--key with - would make one job of all lines: leave it out")
        ids = context.run(_enqueue_lines(task, options))
    else:
        arguments = json_object(payload, "the payload")
        ids = [context.run(_enqueue_one(task, arguments, key, options))]
    if as_json:
        render.json({"id": ids[0]} if payload != "-" else {"ids": ids})
    else:
        render.say("\n".join(map(str, ids)))


async def _enqueue_one(task: str, arguments: dict[str, Any], key: str | None, options: dict[str, Any]) -> int:
    async with context.queue() as queue:
        return await queue.enqueue(await _known(queue, task, arguments), arguments, key=key, **options)


async def _enqueue_lines(task: str, options: dict[str, Any]) -> list[int]:
    """One job a line: every line is checked before the first job is enqueued."""
    from workerd.errors import ConfigError

    payloads = [json_object(line, f"line {number}") for number, line in enumerate(sys.stdin, 1) if line.strip()]
    if not payloads:
        raise ConfigError("standard input has no lines: one JSON object a line is expected")
    async with context.queue() as queue:
        known = await _known(queue, task, payloads[0])
        for payload in payloads[1:]:
            _fits(known, payload)
        ids: list[int] = []
        for begin in range(0, len(payloads), CHUNK):
            ids += await queue.enqueue_many(known, payloads[begin : begin + CHUNK], **options)
        return ids


async def _known(queue: Queue, task: str, arguments: dict[str, Any]) -> Any:
    """The task if its module can be imported here, else its name if a living node knows it. Raises TaskError."""
    from workerd.errors import TaskError
    from workerd.tasks import load_modules

    settings = context.settings()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a module prints is not our answer
            registry = load_modules(settings.tasks, settings.app_dir)
        trouble = ""
    except TaskError as error:
        registry, trouble = {}, f"; {error}"
    if task in registry:
        _fits(registry[task], arguments)
        return registry[task]
    from workerd.queue import inspect

    async with queue.connection() as connection:
        names = await inspect.known_tasks(connection)
    if task in names:
        return task
    close = difflib.get_close_matches(task, [*registry, *names], n=1)
    hint = (
        f", did you mean {close[0]}?"
        if close
        else f" (known are {', '.join(sorted({*registry, *names})) or 'none'}{trouble})"
    )
    raise TaskError(f"neither TASKS nor a living node knows the task {task}{hint}")


def _fits(task: Any, arguments: dict[str, Any]) -> None:
    """Raise TaskError when the arguments do not fit the task's signature."""
    if not isinstance(task, str):
        task.arguments.carried(task.arguments.bind(**arguments))


def json_object(text: str, what: str) -> dict[str, Any]:
    """Arguments of a task. Raises ConfigError."""
    from workerd import codec
    from workerd.errors import ConfigError, PayloadError

    try:
        value = codec.read(text)
    except PayloadError as error:
        said = f"{what} {error}" if str(error).startswith("has ") else f"{what} is {error}; expected is {EXPECTED}"
        raise ConfigError(said) from None
    if not isinstance(value, dict):
        raise ConfigError(f"{what} is not {EXPECTED}")
    return value


def iso_time(text: str | None) -> Any:
    """A time with its zone. Raises ConfigError."""
    from datetime import datetime

    from workerd.errors import ConfigError

    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--run-at {text!r} is no ISO time, such as 2030-01-31T08:00:00+01:00") from None
