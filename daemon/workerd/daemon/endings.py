"""Which outcome an attempt has: of what its handler returned or raised, and of what it was told."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerd import codec
from workerd.errors import PayloadError
from workerd.outcomes import Discard, Expired, Outcome, RetryAfter, Snooze

if TYPE_CHECKING:
    from workerd.config import Settings
    from workerd.daemon.run import Run
    from workerd.outcomes import Ending
    from workerd.queue.claim import Claimed
    from workerd.tasks import Task

MAX_ERROR = 16_000  # characters of a traceback that are kept
_OURS = str(Path(__file__).parent)


class Reported(Exception):
    """A failure of a child process; its text is the whole error, traceback included. `again`: whether it may be retried."""

    def __init__(self, text: str, *, again: bool = True) -> None:
        super().__init__(text)
        self.again = again


class Endings:
    """Makes the one outcome of an attempt."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def returned(self, task: Task[..., Any], run: Run, result: object) -> Outcome:
        """Of a handler that returned something, or after it had finished the job itself."""
        if run.committed:
            return self._failure(task, run, "the transaction of finish_in was rolled back")
        try:
            return Outcome("succeeded", result=codec.dumps(result, f"the result of {task.name}"))
        except PayloadError as error:
            return self.raised(task, run, error)

    def stopped(self, task: Task[..., Any], run: Run, remark: str = "") -> Outcome:
        """Of a handler that was told to stop from here."""
        match run.stop:
            case "cancelled":
                return Outcome("cancelled", error=f"cancelled while it ran{remark}")
            case "returned" | "lost":
                return Outcome("returned", error=f"given back: the daemon stopped{remark}")
            case _:
                limit = task.timeout or self._settings.job_timeout
                return self._failure(task, run, f"timeout: it ran longer than {limit:g} s{remark}")

    def raised(self, task: Task[..., Any], run: Run, error: BaseException) -> Outcome:
        """Of a handler that raised."""
        if run.stop == "cancelled":
            return Outcome("cancelled", error=f"cancelled while it ran, then {describe(error)}")
        match error:
            case Snooze():
                return Outcome("snooze", error=str(error), delay=error.delay)
            case Expired():
                return Outcome("cancelled", error=str(error))
            case Discard() | PayloadError():
                return Outcome("failed", error=str(error))
            case RetryAfter():
                return self._failure(task, run, str(error), error.delay)
            case Reported():
                again = error.again
            case _:
                again = task.retry.covers(error)
        return self._failure(task, run, describe(error)) if again else Outcome("failed", error=describe(error))

    def ttl(self, task: Task[..., Any], ending: Ending) -> float:
        """Seconds to keep the job: a cancellation may meet any attempt that did not succeed, so those have the long one."""
        if ending == "succeeded":
            return self._settings.result_ttl if task.result_ttl is None else task.result_ttl
        return max(self._settings.failure_ttl, 1.0)

    def max_retries(self, task: Task[..., Any], claimed: Claimed) -> int:
        if claimed.max_retries is not None:
            return claimed.max_retries
        return self._settings.max_retries if task.retry.max is None else task.retry.max

    def _failure(self, task: Task[..., Any], run: Run, error: str, delay: float | None = None) -> Outcome:
        failures = run.claimed.failures + 1
        if failures > self.max_retries(task, run.claimed):
            return Outcome("failed", error=error)
        return Outcome(
            "retry",
            error=error,
            delay=task.retry.delay(failures, self._settings.retry_delay) if delay is None else delay,
        )


def describe(error: BaseException) -> str:
    """What was raised, in one line, and then the traceback."""
    if isinstance(error, Reported):
        return str(error)[:MAX_ERROR]
    summary = traceback.TracebackException(type(error), error, None)
    summary.__notes__ = None  # they would come last
    first = list(summary.format_exception_only())[-1].strip().splitlines()[0]
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):  # these tell the reader nothing
        trace = trace.tb_next
    return f"{first}\n{''.join(traceback.format_exception(type(error), error, trace))}"[:MAX_ERROR]
