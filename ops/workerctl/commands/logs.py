"""The daemon's log."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, Annotated

import typer

from workerctl import context, render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import TextIOWrapper
    from pathlib import Path

POLL = 0.2  # seconds between two looks at a file that is followed


def logs(
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines.")] = False,
    lines: Annotated[int, typer.Option("--lines", min=0, help="How many of the last lines.")] = 50,
    errors: Annotated[bool, typer.Option("--errors", help="Warnings and errors only.")] = False,
    job: Annotated[int | None, typer.Option("--job", help="Only what concerns this job.")] = None,
) -> None:
    """Show the last lines of the log.

    Example: workerctl logs --follow --errors
    """
    from workerd.errors import NotRunning

    settings = context.settings()
    path = settings.error_log_path if errors else settings.log_path
    if not path.exists() and not follow:
        raise NotRunning(f"there is no log at {path} (the daemon has not run yet, or LOG_DIR differs)")
    end = 0
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in deque((li for li in file if _concerns(li, job)), maxlen=lines):
                render.say(line.rstrip("\n"))
            end = file.tell()
    if follow:
        for line in _new_lines(path, end):
            if _concerns(line, job):
                typer.echo(line.rstrip("\n"))


def follow() -> None:
    """Follow the log: short for `logs --follow`.

    Example: workerctl follow
    """
    logs(follow=True, lines=10)


def _concerns(line: str, job: int | None) -> bool:
    return job is None or f'"job":{job},' in line or f"job {job} " in line


def _new_lines(path: Path, position: int) -> Iterator[str]:
    """Lines as they are written, across rotations: a new file at the path is read from its beginning."""
    file: TextIOWrapper | None = None
    while True:
        if file is None and path.exists():
            file = path.open(encoding="utf-8", errors="replace")
            file.seek(min(position, os.fstat(file.fileno()).st_size))
            position = 0
        if file is not None:
            yield from iter(file.readline, "")
            if _replaced(path, file):
                yield from iter(file.readline, "")
                file.close()
                file = None
                continue
        time.sleep(POLL)


def _replaced(path: Path, file: TextIOWrapper) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


commands = (logs, follow)
