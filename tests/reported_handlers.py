"""Tasks whose errors are reported."""

from __future__ import annotations

import time

from workerd import Job, Retry, task


@task(retry=0)
async def charge(customer: str) -> None:
    raise ValueError("the bank refuses, password " + PASSWORD)


@task(retry=0, sensitive=True)
async def secretly(card: str) -> None:
    raise ValueError(f"card {card} is refused")


@task(retry=Retry(max=1, interval=0.01))
async def at_second_try(*, job: Job) -> None:
    if job.attempt == 1:
        raise ValueError("not yet")


@task(retry=0)
async def blocking() -> None:
    time.sleep(60)  # noqa: ASYNC251 - what a handler must not do


PASSWORD = "api-token-7"
