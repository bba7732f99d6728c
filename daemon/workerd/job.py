"""The running job as its handler sees it."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol

from workerd.errors import JobError
from workerd.job_lines import LEVELS
from workerd.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

    from workerd.job_lines import JobLines

    AnyConnection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

    class Executes(Protocol):
        """A connection or session of psycopg or SQLAlchemy, synchronous or not."""

        @property
        def execute(self) -> Any: ...

    class HasCursor(Protocol):
        """`django.db.connection`."""

        @property
        def cursor(self) -> Any: ...

    AnyTransaction = AnyConnection | Executes | HasCursor


MAX_NAME = 200  # characters of a step's or event's name


class Host(Protocol):
    """What a job needs from whoever runs it: the daemon, or a test."""

    def report(self, job: Job, fraction: float, message: str | None) -> Awaitable[None]: ...
    def log(self, job: Job, message: str, level: str) -> None: ...
    def connection(self) -> AbstractAsyncContextManager[AnyConnection]: ...
    def finish_in(self, job: Job, connection: AnyTransaction, result: object) -> Awaitable[None]: ...
    def step(self, job: Job, name: str, call: Callable[[], Any]) -> Any: ...
    def wait_for(self, job: Job, event: str, timeout: float | None) -> Any: ...


class Job:
    """One attempt of a job. A handler receives it by a parameter named `job`."""

    __slots__ = (
        "_host",
        "attempt",
        "failures",
        "id",
        "key",
        "lines",
        "max_retries",
        "parents",
        "payload",
        "queue",
        "steps",
        "task",
    )

    def __init__(
        self,
        id: int,
        task: str,
        queue: str,
        attempt: int,
        failures: int,
        max_retries: int,
        key: str | None,
        payload: dict[str, Any],
        host: Host,
    ) -> None:
        self.id = id
        self.task = task
        self.queue = queue
        self.attempt = attempt  # from 1
        self.failures = failures  # before this attempt
        self.max_retries = max_retries
        self.key = key
        self.payload = payload
        self.parents: dict[int, Any] = {}  # results of the jobs that it waited for, by their ids; None: it has none
        self.lines: JobLines | None = None  # what it has logged, kept by its host
        self.steps: dict[str, str] | None = (
            None  # results, as JSON, of those that it has behind it; None: not looked yet
        )
        self._host = host

    @property
    def retries_left(self) -> int:
        return max(0, self.max_retries - self.failures)

    @property
    def due_at(self) -> datetime | None:
        """The time for which a schedule has enqueued it; None: no schedule did."""
        if self.key is None or not self.key.startswith("schedule:"):
            return None
        return datetime.fromisoformat(self.key.rpartition("@")[2])

    def progress(self, fraction: float, message: str | None = None) -> Awaitable[None]:
        """Report how far the job is, from 0 to 1; written at most every PROGRESS_INTERVAL.

        In a `def` handler call it without awaiting. Raises JobError when `fraction` is out of range.
        """
        if not isinstance(fraction, Real) or not 0 <= fraction <= 1:
            raise JobError(f"progress is {fraction!r:.80}, allowed is a number from 0 to 1")
        return self._host.report(self, float(fraction), None if message is None else str(message))

    def log(self, message: str, level: str = "info") -> None:
        """Write a line to the daemon's log and keep it with this attempt: `workerctl logs --job ID` shows it.

        Of an attempt the first 1,000 lines or 64,000 characters are kept.
        `level` is debug, info, warning or error; raises JobError for another.
        """
        if level not in LEVELS:
            raise JobError(f"level is {level!r}, allowed are {', '.join(LEVELS)}")
        self._host.log(self, str(message), level)

    def connection(self) -> AbstractAsyncContextManager[AnyConnection]:
        """An asyncpg connection of the daemon's pool, for `async with`."""
        return self._host.connection()

    def finish_in(self, connection: AnyTransaction, result: object = None) -> Awaitable[None]:
        """Finish the job as succeeded within the caller's transaction: both commit, or neither.

        `connection` is one of asyncpg, psycopg, SQLAlchemy or Django. In a `def` handler call it without awaiting, with a synchronous one.
        It has to be the last statement of an open transaction. What the handler returns afterwards is ignored.
        Raises LeaseLost when the job was rescued meanwhile, JobError outside a transaction, PayloadError for a result that is not JSON.
        """
        return self._host.finish_in(self, connection, result)

    def step(self, name: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `fn(*args, **kwargs)` returned, as JSON; it is called only when no attempt of the job has kept a result of this name.

        To be awaited in an `async def` handler, where a plain `fn` runs in a thread; in a `def` handler call it without awaiting.
        Raises what `fn` raises, PayloadError for a result that is not JSON, LeaseLost when the job was rescued meanwhile.
        """
        _check("step", name)
        return self._host.step(self, name, partial(fn, *args, **kwargs))

    def wait_for(self, event: str, timeout: Duration | None = None) -> Any:
        """The payload with which `Queue.signal` answered; until then the attempt ends as by `Snooze`, and the next one begins anew.

        To be awaited in an `async def` handler; in a `def` handler call it without awaiting.
        Raises TimeoutError when no answer came within `timeout` of the first call, ValueError for a wrong duration.
        """
        _check("event", event)
        return self._host.wait_for(self, event, None if timeout is None else parse_duration(timeout))


def _check(what: str, name: str) -> None:
    if not 0 < len(name) <= MAX_NAME:
        raise JobError(f"the {what}'s name has {len(name)} characters, allowed are 1 to {MAX_NAME}")
