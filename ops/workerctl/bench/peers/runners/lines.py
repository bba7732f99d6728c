"""How a runner talks with the benchmark: commands come as JSON lines, events go as JSON lines with the moment of each."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import uvloop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

_out = sys.stdout
sys.stdout = sys.stderr  # what a library prints is no event


def say(event: str, **facts: Any) -> None:
    """Tell an event."""
    _out.write(json.dumps({"event": event, "at": time.monotonic(), **facts}) + "\n")
    _out.flush()


class Tally:
    """What the handlers of this process count."""

    def __init__(self) -> None:
        self.runs = 0
        self.starts: dict[int, float] = {}

    def count(self) -> None:
        """Note a run; the first one is told."""
        self.runs += 1
        if self.runs == 1:
            say("first")

    def stamp(self, number: int) -> None:
        """Note when the job of this number started."""
        self.starts[number] = time.monotonic()
        self.count()

    def end(self) -> None:
        """Tell everything."""
        say("end", runs=self.runs, starts=self.starts)


async def in_turn(one: Callable[[], Awaitable[Any]], jobs: int) -> None:
    """Enqueue so many, one awaited after another."""
    for _ in range(jobs):
        await one()


async def in_transactions(
    begin: Callable[[], AbstractAsyncContextManager[Any]], one: Callable[[], Awaitable[Any]], jobs: int, in_each: int
) -> None:
    """Enqueue so many, one awaited after another, this number of them in each transaction."""
    for first in range(0, jobs, in_each):
        async with begin():
            await in_turn(one, min(in_each, jobs - first))


async def together(one: Callable[[], Awaitable[Any]], jobs: int, coroutines: int) -> None:
    """Enqueue so many by this number of coroutines, each awaiting its own ones in turn."""
    async with asyncio.TaskGroup() as group:
        for number in range(coroutines):
            group.create_task(in_turn(one, jobs // coroutines + (number < jobs % coroutines)))


async def timed(work: Awaitable[Any]) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    await work
    return time.monotonic() - began


async def trickle(
    enqueue: Callable[[list[int]], Awaitable[Any]], jobs: int, rate: float, at_once: int
) -> dict[int, float]:
    """Enqueue numbered jobs at an even rate; returns when the commit of each was known here."""
    committed: dict[int, float] = {}
    began = time.monotonic()
    for first in range(0, jobs, at_once):
        await asyncio.sleep(began + first / rate - time.monotonic())
        numbers = list(range(first, min(jobs, first + at_once)))
        await enqueue(numbers)
        committed |= dict.fromkeys(numbers, time.monotonic())
    return committed


def serve(actions: dict[str, Callable[..., Awaitable[Any]]]) -> None:
    """Carry out commands until there are no more; each is answered by an event of its name with what it returned."""
    uvloop.run(_serve(actions))


async def next_command() -> dict[str, Any] | None:
    """The next command; None: there are no more."""
    line = await _commands.readline()
    return json.loads(line) if line else None


async def _serve(actions: dict[str, Callable[..., Awaitable[Any]]]) -> None:
    global _commands
    _commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(_commands), sys.stdin)
    while command := await next_command():
        name = command.pop("do")
        say(name, answer=await actions[name](**command))
