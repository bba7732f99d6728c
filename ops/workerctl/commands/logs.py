"""The daemon's log."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from workerctl import context, render
from workerctl.record import print_record
from workerd.errors import NotFound, NotRunning, WorkerdError


def logs(
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines.")] = False,
    lines: Annotated[int, typer.Option("--lines", min=0, help="How many of the last lines.")] = 50,
    errors: Annotated[bool, typer.Option("--errors", help="Warnings and errors only.")] = False,
    job: Annotated[
        int | None, typer.Option("--job", help="Only what concerns this job, also what is kept in the database.")
    ] = None,
    runtime: context.RuntimeOption = None,
) -> None:
    """Show the last lines of the log.

    Example: workerctl logs --follow --errors
    """
    chosen = context.runtime(runtime)
    log = chosen.log(lines, lambda record: _concerns(record, job), errors=errors)
    last = log.last
    if job is not None and not errors:
        last = _merged(last, _kept(job), job, console=chosen.settings.log_format == "console")[-lines:] if lines else []
    if not last and lines and job is not None and not _exists(job):
        raise NotFound(f"there is no job {job}")
    if not last and not follow and log.missing:
        what = "" if job is None else f", and nothing that job {job} logged is kept"
        raise NotRunning(f"{log.missing}{what}")
    for record in last:
        print_record(record)
    if follow:
        for line in log.new:
            print_record(line)


def follow(runtime: context.RuntimeOption = None) -> None:
    """Follow the log: short for `logs --follow`.

    Example: workerctl follow
    """
    logs(follow=True, lines=10, runtime=runtime)


def _concerns(record: str, job: int | None) -> bool:
    return job is None or f'"job":{job},' in record or f'"job":{job}}}' in record or f"job {job} " in record


def _kept(job: int) -> list[dict[str, Any]]:
    """What the job logged, from the database; where that does not answer, nothing but a word about it."""
    from workerd.queue import job_log

    async def ask() -> list[dict[str, Any]]:
        async with context.queue(upgrade=False) as queue, queue.connection() as connection:
            return await job_log.lines_of(connection, job)

    try:
        return context.run(ask())
    except WorkerdError as error:
        render.warn(f"only the log file is shown: {error}")
        return []


def _exists(job: int) -> bool:
    """Whether there is the job; where the database does not answer, it may be."""
    from workerd.queue import inspect

    async def ask() -> bool:
        async with context.queue(upgrade=False) as queue, queue.connection() as connection:
            return await inspect.job(connection, job) is not None

    try:
        return context.run(ask())
    except WorkerdError:
        return True


def _merged(records: list[str], kept: list[dict[str, Any]], job: int, *, console: bool) -> list[str]:
    """Records of the file with those kept lines that are not among them, in order of time."""
    numbered, worded = _in_file(records, job)
    missing = []
    for line in kept:
        words = (line["attempt"], line["message"])
        if (line["attempt"], line["line"]) in numbered:
            continue
        if words in worded:
            worded.remove(words)
            continue
        missing.append((_moment(line["at"]), _as_record(line, job, console=console)))
    return [text for _, text in sorted([*((_moment_of(r), r) for r in records), *missing], key=lambda each: each[0])]


def _in_file(records: list[str], job: int) -> tuple[set[tuple[int, int]], list[tuple[int, str]]]:
    """Which lines that jobs logged are among the records: by attempt and number in JSON, by attempt and text for people."""
    import orjson

    numbered, worded = set(), []
    for record in records:
        if record.startswith("{"):
            try:
                fields = orjson.loads(record)
            except orjson.JSONDecodeError:
                continue
            if fields.get("logger") == "job":
                numbered.add((fields.get("attempt"), fields.get("line")))
        elif found := re.search(rf"\[job {job} [^\[]*?#(\d+)\] (.*)", record, re.DOTALL):
            worded.append((int(found[1]), found[2]))
    return numbered, worded


def _as_record(line: dict[str, Any], job: int, *, console: bool) -> str:
    import orjson

    if console:
        return f"{render.brief(line['at'])} {line['level'].upper():<8}[job {job} #{line['attempt']}] {line['message']}"
    fields = {"ts": line["at"], "level": line["level"].upper(), "logger": "job", "job": job, "attempt": line["attempt"]}
    return orjson.dumps({**fields, "message": line["message"], "line": line["line"]}).decode()


def _moment_of(record: str) -> float:
    """When a record was written; 0 for what cannot be read."""
    found = re.match(r'\{"ts":"([^"]+)"|(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.\d]*)', record)
    return _moment(found[1] or found[2]) if found else 0.0


def _moment(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).astimezone().timestamp()
