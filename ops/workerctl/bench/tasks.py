"""What the jobs of the benchmark do: next to nothing, so that all that is measured is the queue."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import time

from workerd import task

_starts: dict[int, float] = {}
_runs = 0


@task(result_ttl=0)
async def noop() -> None:
    """Leaves no row."""
    _count()


@task
async def kept() -> None:
    """Leaves its row in the history, as tasks do unless they say otherwise."""
    _count()


@task(result_ttl=0)
async def stamp(number: int) -> None:
    """Writes down when it started."""
    _starts[number] = time.monotonic()
    _count()


@task(result_ttl=0)
async def pause(seconds: float) -> None:
    """Waits, as for an answer from elsewhere."""
    _count()
    await asyncio.sleep(seconds)


def _count() -> None:
    global _runs
    _runs += 1
    if _runs == 1:
        _say("first")


def _say(event: str, **facts: object) -> None:
    """One line for the benchmark. The daemon's own standard output goes to its log, the descriptor does not."""
    line = json.dumps({"event": event, "at": time.monotonic(), **facts}).encode() + b"\n"
    while line:  # a signal ends a write to a full pipe early
        line = line[os.write(1, line) :]


@atexit.register
def _end() -> None:
    _say("end", runs=_runs, starts=_starts)
