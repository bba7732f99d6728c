"""Tasks with steps, and tasks that wait for answers."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tests.handlers import begun, go_on
from workerd import Job, JobError, Retry, Snooze, task
from workerd.errors import LeaseLost

calls: list[str] = []  # what was called within the test's process


async def first(letter: str, *, number: int) -> tuple[str, int]:
    calls.append("first")
    return letter, number


def second(fails: bool) -> dict[str, int]:
    calls.append("second")
    if fails:
        raise ValueError("the second step fails")
    return {"b": 2}


@task(retry=Retry(max=3, interval=0.01))
async def stepping(fails: int, *, job: Job) -> dict[str, Any]:
    one = await job.step("first", first, "a", number=1)
    two = await job.step("second", second, job.attempt <= fails)
    return {"first": one, "second": two, "attempt": job.attempt}


@task(retry=Retry(max=3, interval=0.01))
def stepping_in_thread(fails: int, *, job: Job) -> dict[str, Any]:
    one = job.step("first", first, "a", number=1)
    two = job.step("second", second, job.attempt <= fails)
    return {"first": one, "second": two, "attempt": job.attempt}


class Later:
    """An object whose call is a coroutine."""

    async def __call__(self) -> int:
        await asyncio.sleep(0)
        return 1


async def _two() -> int:
    await asyncio.sleep(0)
    return 2


def behind() -> Any:
    """Makes what is to be awaited, and is none itself."""
    return _two()


@task
async def stepping_later(*, job: Job) -> list[int]:
    return [await job.step("object", Later()), await job.step("wrapper", behind)]


@task
def stepping_later_in_thread(*, job: Job) -> list[int]:
    return [job.step("object", Later()), job.step("wrapper", behind)]


@task
async def stepping_aside(count: int, *, job: Job) -> list[int]:
    def aside(number: int) -> int:
        calls.append(str(number))
        return number

    return list(await asyncio.gather(*(job.step(str(n), aside, n) for n in range(count))))


@task(retry=0)
async def stepping_badly(name: str = "bad", *, job: Job) -> None:
    await job.step(name, object)


@task(retry=0)
async def stepping_gated(number: int, *, job: Job) -> None:
    async def slow() -> None:
        begun[number].set()
        await go_on[number].wait()

    try:
        await job.step("slow", slow)
    except LeaseLost:
        calls.append("LeaseLost")
        raise


@task(cpu=True, retry=Retry(max=3, interval=0.01))
def stepping_in_child(fails: int, *, job: Job) -> dict[str, Any]:
    one = job.step("first", os.getpid)
    two = job.step("second", second, job.attempt <= fails)
    return {"first": one, "pid": os.getpid(), "second": two, "attempt": job.attempt}


@task(cpu=True)
def waiting_in_child(event: str, timeout: str | float | None = None, *, job: Job) -> Any:
    return job.wait_for(event, timeout)


later = threading.Event()
left: list[Future[Any]] = []  # within one child


def _ask_later(job: Job) -> Any:
    later.wait()
    return job.step("too late", int)


@task(cpu=True, retry=0)
def asking_in_child(how: str, *, job: Job) -> Any:
    """Asks from several threads, from a fork, or badly."""
    match how:
        case "threads":
            with ThreadPoolExecutor(8) as pool:
                return sorted(pool.map(lambda n: job.step(f"step {n}", int, n), range(40)))
        case "fork":
            if os.fork() == 0:
                try:
                    job.step("in the fork", int)
                except JobError:
                    os._exit(7)
                os._exit(0)
            return [os.waitstatus_to_exitcode(os.wait()[1]), job.step("after it", int, 5)]
        case "thread left behind":
            left.append(ThreadPoolExecutor(1).submit(_ask_later, job))
            return None
        case "its answer":
            later.set()
            return type(left[0].exception(10)).__name__
        case "late":
            return job.wait_for("approved", 0)
        case _:
            return job.step("bad", object)


@task
async def stepping_then_waiting(*, job: Job) -> Any:
    await job.step("first", first, "a", number=1)
    return await job.wait_for("approved")


@task
async def waiting(event: str, timeout: str | float | None = None, *, job: Job) -> Any:
    return await job.wait_for(event, timeout)


@task(retry=0)
async def waiting_for_both(*, job: Job) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(job.wait_for(event)) for event in ("one", "other")]
    return [each.result() for each in waits]


@task
def waiting_in_thread(event: str, timeout: str | float | None = None, *, job: Job) -> Any:
    return job.wait_for(event, timeout)


@task(retry=Retry(max=1, interval=0.01))
async def waiting_briefly(event: str, number: int, *, job: Job) -> list[str]:
    """Fails after its time was over for the first time, when the test lets it."""
    try:
        await job.wait_for(event, 0.05)
    except TimeoutError:
        calls.append("timed out")
    if len(calls) == 1:
        await go_on[number].wait()
        raise ValueError("after the time was over")
    return calls


@task
async def waiting_gated(number: int, *, job: Job) -> Any:
    """Its attempt ends when the test lets it."""
    try:
        return await job.wait_for("approved", "1h")
    except Snooze:
        begun[number].set()
        await go_on[number].wait()
        raise


@task(retry=Retry(max=1, interval=3600))
async def waiting_then_failing(event: str, *, job: Job) -> None:
    try:
        await job.wait_for(event)
    except Snooze:
        raise ValueError("it fails instead") from None


@task(retry=0)
async def killed_between_steps(*, job: Job) -> int:
    """Its first attempt waits after the first step for its daemon to be killed."""

    async def insert() -> int:
        async with job.connection() as connection:
            await connection.execute("INSERT INTO effects (step, attempt) VALUES ('first', $1)", job.attempt)
        return job.attempt

    made_by: int = await job.step("first", insert)
    if job.attempt == 1:
        await asyncio.Event().wait()
    return made_by
