"""Tasks that tests enqueue."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import logging
import os
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerd import Discard, Job, Retry, RetryAfter, Snooze, task

if TYPE_CHECKING:
    from collections.abc import Callable

# For daemons within the test's process: handlers say that they have begun, and wait until the test lets them go on.
begun: dict[int, asyncio.Event] = {}
go_on: dict[int, asyncio.Event] = {}
loops: dict[int, asyncio.AbstractEventLoop] = {}


def gate(number: int) -> tuple[asyncio.Event, asyncio.Event]:
    """The events of one gated job: it has begun; it may go on."""
    begun[number], go_on[number], loops[number] = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()
    return begun[number], go_on[number]


@task
async def echo(value: Any = None) -> Any:
    return value


@task
def echo_in_thread(value: Any = None) -> Any:
    return value


@task(cpu=True)
def echo_in_child(value: Any = None) -> Any:
    return value


def behind(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A plain wrapper, as decorators of libraries make it."""

    @functools.wraps(fn)
    def wrapper(*given: Any, **named: Any) -> Any:
        return fn(*given, **named)

    return wrapper


@task
@behind
async def wrapped(value: Any = None) -> Any:
    await asyncio.sleep(0)
    return value


@task(cpu=True)
@behind
async def wrapped_in_child(value: Any = None) -> Any:
    await asyncio.sleep(0)
    return value


class Doubling:
    async def __call__(self, value: int) -> int:
        await asyncio.sleep(0)
        return 2 * value


task(name="an_object")(Doubling())
task(name="a_partial")(functools.partial(Doubling(), value=21))


@task
async def gated(number: int) -> str:
    begun[number].set()
    await go_on[number].wait()
    return "went on"


BAD_DELAYS: dict[str, Any] = {
    "a delay of text": "soon",
    "a delay without end": float("inf"),
    "a delay of 1e18": 1e18,
    "no delay": None,
}


@task
async def ends_with(kind: str) -> None:
    """Asks for a retry after a delay that its exception would have refused."""
    again = RetryAfter(1)
    again.delay = BAD_DELAYS[kind]
    raise again


LENGTH = 0.1  # seconds that limited jobs take


@task(concurrency=2)
async def two_at_a_time() -> None:
    await asyncio.sleep(0.02)


@task(concurrency=1, limit_key="tenant")
async def one_per_tenant(tenant: str) -> None:
    await asyncio.sleep(LENGTH)


@task(limit_key="tenant")
async def in_turn(tenant: str) -> None:
    await asyncio.sleep(0.01)


@task(limit="40/s")
async def forty_a_second() -> None:
    pass


@task(limit="50/s")
async def fifty_a_second() -> None:
    pass


@task(limit_key="tenant", result_ttl=0)
async def fair(tenant: int) -> None:
    pass


@task(concurrency=4)
async def crowd(tenant: int, *, job: Job) -> None:
    """Writes down how many of its kind run beside it."""
    async with job.connection() as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS crowd (id bigint, n int)")
        await connection.execute(
            "INSERT INTO crowd SELECT $1, count(*) FROM workerd.job WHERE task = 'crowd' AND state = 'running'", job.id
        )
    await asyncio.sleep(0.02)


@task
async def when_due(*, job: Job) -> str:
    assert job.due_at is not None
    return job.due_at.isoformat()


@task
async def pause() -> None:
    await asyncio.sleep(0.02)


@task(concurrency=1, limit_key="tenant", retry=Retry(max=2, interval=0.01))
async def clumsy(tenant: str, *, job: Job) -> None:
    if job.attempt == 1:
        raise ValueError(f"{tenant} stumbles")


@task(concurrency=1)
async def alone(number: int) -> None:
    begun[number].set()
    await go_on[number].wait()


@task
async def gather(*, job: Job) -> list[Any]:
    return list(job.parents.values())


@task
def gather_in_thread(*, job: Job) -> list[Any]:
    return list(job.parents.values())


@task(cpu=True)
def gather_in_child(*, job: Job) -> list[Any]:
    return list(job.parents.values())


@task(result_ttl=0)
async def fleeting(number: int) -> None:
    begun[number].set()
    await go_on[number].wait()


@task(retry=Retry(max=0))
async def gated_failure(number: int) -> None:
    begun[number].set()
    await go_on[number].wait()
    raise ValueError("told to fail")


@task
async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task(retry=0)
async def nap_by_a_program(seconds: float) -> None:
    program = await asyncio.create_subprocess_exec("sleep", str(seconds))
    assert await program.wait() == 0


@task(retry=Retry(max=2, interval=0.01))
async def stumble(until_attempt: int, *, job: Job) -> int:
    if job.attempt < until_attempt:
        raise ValueError(f"attempt {job.attempt} stumbles")
    return job.attempt


@task(retry=Retry(max=0))
async def impatient() -> None:
    raise RetryAfter("1h", "come back later")


@task(retry=Retry(max=1))
async def later(seconds: float, *, job: Job) -> int:
    if job.attempt == 1:
        raise RetryAfter(seconds, "the service is busy")
    return job.attempt


@task(retry=Retry(max=0))
async def snoozing(times: int, *, job: Job) -> dict[str, int]:
    if job.attempt <= times:
        raise Snooze(0.01)
    return {"attempt": job.attempt, "failures": job.failures}


@task
async def discarding() -> None:
    raise Discard("this will never work")


@task(timeout=0.2, retry=Retry(max=0))
async def too_slow() -> None:
    await asyncio.sleep(60)


@task
def in_thread(value: int, *, job: Job) -> dict[str, Any]:
    job.progress(0.5, "half")
    return {"value": value, "main": threading.current_thread() is threading.main_thread()}


@task
async def measured(*, job: Job) -> str:
    await job.progress(0.25, "a quarter")
    await job.progress(0.75, "three quarters")
    return "done"


@task
async def held_after_progress(*, job: Job) -> None:
    for message in ("one", "two", "three"):
        await job.progress(0.5, message)
    await asyncio.Event().wait()


@task
async def telling_the_time(times: int, *, job: Job) -> None:
    for n in range(times):
        await job.progress(n / times, f"at {time.time()}")
        await asyncio.sleep(0.6)


@task(result_ttl=0)
async def forgotten() -> None:
    pass


@task(queue="mail", priority=7)
async def posted(to: str) -> str:
    return to


@task
async def unserialisable() -> object:
    return object()


@task
async def transactional(n: int, *, rolls_back: bool = False, job: Job) -> str:
    async with job.connection() as connection:
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO written VALUES ($1)", n)
                await job.finish_in(connection, {"wrote": n})
                if rolls_back and job.attempt == 1:
                    raise RuntimeError("rolled back on purpose")
        except RuntimeError:
            return "the transaction is gone"
    return "ignored"


@task
async def recorded(n: int, seconds: float, *, job: Job) -> int:
    """Writes who ran what when; the row and the success of the job are committed together."""
    await asyncio.sleep(seconds)
    async with job.connection() as connection, connection.transaction():
        await connection.execute("INSERT INTO ran (n, attempt) VALUES ($1, $2)", n, job.attempt)
        await job.finish_in(connection, n)
    return n


@task
async def recorded_when_allowed(n: int, sign: str, *, job: Job) -> int:
    """As `recorded`, when there is a file `sign`: daemons of several processes see it."""
    while not Path(sign).exists():  # noqa: ASYNC110 - no event reaches both
        await asyncio.sleep(0.05)
    async with job.connection() as connection, connection.transaction():
        await connection.execute("INSERT INTO ran (n, attempt) VALUES ($1, $2)", n, job.attempt)
        await job.finish_in(connection, n)
    return n


@task
async def holding_a_connection(seconds: int, *, job: Job) -> None:
    async with job.connection() as connection:
        await connection.fetchval(f"SELECT {seconds}")
        await asyncio.sleep(seconds)


@task
async def blocking(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - a handler that blocks the loop, as they do


@task
async def enqueuing(values: list[int]) -> list[int]:
    return [await echo.enqueue(value) for value in values]


@task(retry=Retry(max=0))
async def interrupting() -> None:
    raise KeyboardInterrupt


@task(timeout=0.2, retry=Retry(max=0))
def never_returning(number: int) -> None:
    threading.Event().wait()


@task
async def deadly() -> None:
    """Takes its daemon with it, as a crash in C code does."""
    os._exit(1)


@task
async def deaf() -> None:
    """Ignores every cancellation."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@task(timeout=0.2, retry=Retry(max=1, interval=0.01))
async def deaf_at_first(number: int, *, job: Job) -> str:
    """Its first attempt ignores every cancellation until the test lets it go on."""
    if job.attempt > 1:
        return "the second attempt"
    begun[number].set()
    while not go_on[number].is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await go_on[number].wait()
    return "the first attempt, late"


@task(timeout=0.2, retry=Retry(max=1, interval=0.01))
def thread_at_first(number: int, *, job: Job) -> str:
    """Its first attempt returns when the test lets it."""
    if job.attempt > 1:
        return "the second attempt"
    asyncio.run_coroutine_threadsafe(go_on[number].wait(), loops[number]).result()
    return "the first attempt, late"


@task(timeout=0.2, retry=0)
async def deaf_for_ever() -> None:
    await deaf.fn()


@task
def printing(text: str) -> None:
    print(text)


@task(retry=Retry(max=1, interval=0))
async def telling(lines: int, *, fails: bool = False, job: Job) -> str:
    for number in range(lines):
        job.log(f"line {number}", "warning" if number % 2 else "info")
    logging.getLogger("shop").info("a library says %s", job.id)
    if fails and job.attempt == 1:
        raise ValueError(f"order {job.id} is wrong")
    return "told"


@task
def telling_in_thread(*, job: Job) -> None:
    job.log("from a thread", "error")
    logging.getLogger("shop").info("and its library")


@task(retry=Retry(max=0))
async def telling_gated(number: int, *, job: Job) -> None:
    job.log("begun")
    begun[number].set()
    await go_on[number].wait()


@task
async def telling_before_finish_in(*, job: Job) -> None:
    job.log("before")
    async with job.connection() as connection, connection.transaction():
        await job.finish_in(connection)
    job.log("after")


@task(retry=Retry(max=0))
async def failing(number: int, how: str = "order") -> None:
    if how == "order":
        raise ValueError(f"order {number} is wrong")
    raise Discard(f"no customer {number} at '{how}'")


@task(cpu=True)
def telling_in_child(*, job: Job) -> None:
    job.log("from a child", "warning")
    logging.getLogger("shop").warning("and its library")


_hoard: list[bytes] = []


@task
async def hoard(megabytes: int) -> None:
    """Leaks, as handlers do."""
    _hoard.append(b"x" * (megabytes * 1024**2))


@task
async def holding_at_first(*, job: Job) -> int:
    """Its first attempt holds the interpreter in a call into C."""
    if job.attempt == 1:
        re.match(r"(a+)+$", "a" * 60 + "b")
    return job.attempt


@task
async def blocking_at_first(seconds: float, *, job: Job) -> int:
    """Its first attempt blocks the loop."""
    if job.attempt == 1:
        time.sleep(seconds)  # noqa: ASYNC251 - a handler that blocks the loop, as they do
    return job.attempt


@task
async def ending_the_lease_thread(*, job: Job) -> int:
    """Its first attempt ends that thread, as an error would that nobody foresaw, and goes on."""
    if job.attempt == 1:
        (lease,) = (thread for thread in threading.enumerate() if thread.name == "lease")
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(lease.ident or 0), ctypes.py_object(SystemExit)
        )
        await asyncio.sleep(60)
    return job.attempt


@task
async def reporting_gated(number: int, *, job: Job) -> None:
    await job.progress(0.5, "half")
    job.log("half of it")
    job.log("nearly", "warning")
    await gated.fn(number)


@task(needs_database=True)
async def needs_the_database(*, job: Job) -> int:
    async with job.connection() as connection:
        return int(await connection.fetchval("SELECT 1"))


@task(retry=1)
async def ends_rudely(how: str, which: int, value: Any = None) -> Any:
    """Returns or raises one of the rude values."""
    from tests import rude_values

    if how == "returns":
        return rude_values.RETURNED[which % len(rude_values.RETURNED)]
    raise rude_values.RAISED[which % len(rude_values.RAISED)]


@task(retry=1)
def ends_rudely_in_thread(how: str, which: int, value: Any = None) -> Any:
    from tests import rude_values

    if how == "returns":
        return rude_values.RETURNED[which % len(rude_values.RETURNED)]
    raise rude_values.RAISED[which % len(rude_values.RAISED)]
