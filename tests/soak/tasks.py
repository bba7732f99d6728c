"""The tasks of the soak test: most succeed, some fail at first, some never end in time, some use threads and connections."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from workerd import Job, Retry, task

WORK = 0.005  # seconds that a job takes


class Expected(NamedTuple):
    """How the jobs of a task have to end."""

    state: str
    attempt: int
    failures: int


@task
async def ordinary(n: int) -> int:
    await asyncio.sleep(WORK)
    return n


@task(retry=Retry(max=1, interval=1))
async def stumbling(n: int, *, job: Job) -> int:
    if job.attempt == 1:
        raise ValueError(f"job {n} stumbles")
    return n


@task(timeout=0.2, retry=0)
async def hanging(n: int) -> None:
    await asyncio.Event().wait()


@task
def threaded(n: int) -> int:
    time.sleep(WORK)
    return n


@task
async def talking(n: int, *, job: Job) -> int:
    await job.progress(0.5, "half")
    job.log(f"job {n} talks")
    return n


PLAIN = Expected("succeeded", attempt=1, failures=0)
EXPECTED = {
    "ordinary": PLAIN,
    "stumbling": Expected("succeeded", attempt=2, failures=1),
    "hanging": Expected("failed", attempt=1, failures=1),
    "threaded": PLAIN,
    "talking": PLAIN,
}
RARE = {10: "stumbling", 30: "hanging", 50: "threaded", 70: "talking"}  # one of a hundred each


def task_of(n: int) -> str:
    """The task of the n-th job."""
    return RARE.get(n % 100, "ordinary")
