"""Tasks that do what no task should: fork, exit, cancel themselves, leave threads and settings behind."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from workerd import Job, task

FORK = multiprocessing.get_context("fork")
tenant: contextvars.ContextVar[str | None] = contextvars.ContextVar("tenant", default=None)
left: set[Any] = set()  # what they leave behind


@task
async def innocent(seconds: float = 0.0) -> str:
    await asyncio.sleep(seconds)
    return "fine"


@task(retry=0)
async def fails_with_a_limit() -> None:
    async with asyncio.timeout(0.001):
        await asyncio.gather(asyncio.sleep(60), asyncio.sleep(0))


# exits


async def _leave(error: type[BaseException] = SystemExit) -> None:
    await asyncio.sleep(0)
    raise error("bye")


async def _exit_in_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_leave())


async def _interrupt_in_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_leave(KeyboardInterrupt))


async def _exit_in_gather() -> None:
    await asyncio.gather(_leave(), asyncio.sleep(60))


async def _exit_unawaited() -> None:
    left.add(asyncio.create_task(_leave()))
    await asyncio.sleep(60)


async def _exit_soon() -> None:
    asyncio.get_running_loop().call_soon(sys.exit, "bye")
    await asyncio.sleep(60)


async def _exit_later() -> None:
    asyncio.get_running_loop().call_later(0.01, sys.exit, "bye")
    await asyncio.sleep(60)


async def _exit_from_thread() -> None:
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(loop.call_soon_threadsafe, sys.exit, "bye")
    await asyncio.sleep(60)


EXITS = {
    "group": _exit_in_group,
    "interrupted group": _interrupt_in_group,
    "gather": _exit_in_gather,
    "unawaited": _exit_unawaited,
    "soon": _exit_soon,
    "later": _exit_later,
    "thread": _exit_from_thread,
}


@task(retry=0)
async def exits(how: str) -> None:
    await EXITS[how]()


@task(retry=0)
async def exits_for_nobody() -> str:
    """In a callback of which nobody knows the job."""
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()

    def read() -> None:
        loop.remove_reader(one)
        left.add(one)
        sys.exit("bye")

    loop.add_reader(one, read)
    other.send(b"x")
    await asyncio.sleep(0.1)
    return "goes on"


async def _close() -> None:
    raise GeneratorExit("closed")


@task(retry=0)
async def closes(how: str) -> None:
    """A future that carries a GeneratorExit closes the coroutines that wait for it."""
    match how:
        case "task":
            await asyncio.create_task(_close())
        case "thread":
            await asyncio.to_thread(_raise_generator_exit)
        case "and goes on":
            try:
                await asyncio.gather(_close())
            finally:
                await asyncio.sleep(0)


def _raise_generator_exit() -> None:
    raise GeneratorExit("closed")


# threads


@task(retry=0)
async def leaves_a_thread(how: str, *, job: Job) -> None:
    stuck = threading.Event().wait
    match how:
        case "to_thread":
            await asyncio.to_thread(stuck)
        case "step":
            await job.step("stuck", stuck)
        case "pool":
            await asyncio.get_running_loop().run_in_executor(ThreadPoolExecutor(1), stuck)
        case "thread":
            threading.Thread(target=stuck).start()
            await asyncio.sleep(600)


# forks


def _nap() -> None:
    time.sleep(600)


def _square(number: int) -> int:
    return number * number


def _terminated() -> list[int | None]:
    """The exit code of a process that gets SIGTERM at once."""
    process = FORK.Process(target=_nap)
    process.start()
    process.terminate()
    process.join()
    return [process.exitcode]


def _pool() -> list[int | None]:
    with FORK.Pool(2) as pool:
        return list(pool.map(_square, range(3)))


def _comes_back() -> list[int | None]:
    """A fork that returns as if it were its parent."""
    pid = os.fork()
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])] if pid else []


def _exits_in_fork() -> list[int | None]:
    pid = os.fork()
    if not pid:
        sys.exit(3)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]


FORKS = {"terminated": _terminated, "pool": _pool, "comes back": _comes_back, "exits": _exits_in_fork}
FORKED = {"terminated": [-signal.SIGTERM], "pool": [0, 1, 4], "comes back": [0], "exits": [3]}


@task(retry=0)
async def forks(how: str) -> list[int | None]:
    return FORKS[how]()


@task(retry=0)
def forks_in_thread(how: str) -> list[int | None]:
    return FORKS[how]()


@task(retry=0, cpu=True)
def forks_in_child(how: str) -> list[int | None]:
    return FORKS[how]()


@task(retry=0)
async def leaves_a_fork() -> int | None:
    process = FORK.Process(target=_nap)
    process.start()
    left.add(process)
    return process.pid


# context


def _settings() -> list[Any]:
    return [tenant.get(), decimal.getcontext().prec]


def _set(name: str) -> list[Any]:
    before = _settings()
    tenant.set(name)
    decimal.getcontext().prec = 3
    return before


@task
async def sets(name: str) -> list[Any]:
    return _set(name)


@task
async def sets_and_waits(name: str) -> list[Any]:
    before = _set(name)
    await asyncio.sleep(0.001)
    return before


@task
def sets_in_thread(name: str) -> list[Any]:
    return _set(name)


@task(cpu=True)
def sets_in_child(name: str) -> list[Any]:
    return _set(name)


# cancellation


@task(retry=0)
async def cancels_itself(how: str) -> str:
    task = asyncio.current_task()
    assert task is not None
    match how:
        case "at once":
            task.cancel()
            await asyncio.sleep(60)
        case "and returns":
            task.cancel()
        case "and swallows it":
            task.cancel()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "swallowed"
        case "in time":
            asyncio.get_running_loop().call_later(0.01, task.cancel)
            await asyncio.sleep(60)
        case "too late":
            asyncio.get_running_loop().call_later(0.1, task.cancel)
    return "in time"


# logs

LINES = 5  # of each job
_shop = logging.getLogger("shop")


def _babble(number: int, lines: range) -> None:
    for line in lines:
        _shop.log(
            random.choice((logging.INFO, logging.ERROR)), "babble %s line %s %s", number, line, random.choice(_WILD)
        )


_WILD = ("", "x" * 20_000, "\udce9 \0 \u2028", "{%s}", "https://user:secret@host/", "one\ntwo")


@task
async def babbles(number: int) -> None:
    """On the loop, in an asyncio task and in a thread."""
    _babble(number, range(2))
    await asyncio.gather(_babble_later(number), asyncio.to_thread(_babble, number, range(3, LINES)))


async def _babble_later(number: int) -> None:
    await asyncio.sleep(0)
    _babble(number, range(2, 3))


@task
def babbles_in_thread(number: int) -> None:
    _babble(number, range(LINES))


@task(cpu=True)
def babbles_in_child(number: int) -> None:
    """Of the fork too, which writes where the programs of a handler write."""
    _babble(number, range(2))
    print(f"babble {number} line 2")
    fork = FORK.Process(target=_shop.error, args=(f"babble {number} line 3",))
    fork.start()
    fork.join()
    os.write(2, f"babble {number} line 4\n".encode())


# blocks


@task(retry=0, timeout=0.2)
async def blocks_in_thread(seconds: float) -> str:
    """Past its timeout, or not."""
    await asyncio.to_thread(time.sleep, seconds)
    return "fine"


@task(retry=0, timeout=0.2)
def blocks(seconds: float) -> str:
    time.sleep(seconds)
    return "fine"


_met: set[int] = set()
_all_met = asyncio.Event()


@task
async def meets(number: int, others: int) -> str:
    """Ends when so many run at the same time."""
    _met.add(number)
    if len(_met) == others:
        _all_met.set()
    await _all_met.wait()
    return "met"
