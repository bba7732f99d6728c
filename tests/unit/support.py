"""What unit tests make again and again: claimed jobs, and a clock that stands until it is moved."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from workerd.queue.claim import Claimed
from workerd.queue.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from workerd import Job
    from workerd.job import AnyConnection, AnyTransaction

LANE = Lane(1, "default", 0)
_ids = count(1)


def claimed(pos: int, n: int = 1, node: int = 1) -> Claimed:
    """A job that was claimed in its first attempt."""
    return Claimed(node, n, LANE, pos, next(_ids), "echo", 0.0, "{}")


class Clock:
    """Stands in for `time.monotonic`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Nobody:
    """The host of jobs that ask nothing of it."""

    def report(self, job: Job, fraction: float, message: str | None) -> Awaitable[None]:
        raise NotImplementedError

    def log(self, job: Job, message: str, level: str) -> None:
        raise NotImplementedError

    def connection(self) -> AbstractAsyncContextManager[AnyConnection]:
        raise NotImplementedError

    def finish_in(self, job: Job, connection: AnyTransaction, result: object) -> Awaitable[None]:
        raise NotImplementedError

    def step(self, job: Job, name: str, call: Callable[[], Any]) -> Any:
        raise NotImplementedError

    def wait_for(self, job: Job, event: str, timeout: float | None) -> Any:
        raise NotImplementedError
