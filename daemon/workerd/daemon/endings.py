"""Which outcome an attempt has: of what its handler returned or raised, and of what it was told."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerd import codec
from workerd.error_text import line_of
from workerd.errors import PayloadError
from workerd.outcomes import BadDelay, Control, Discard, Expired, Outcome, RetryAfter, Snooze, Unfit, decision

if TYPE_CHECKING:
    from collections.abc import Mapping

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
            return self.raised(task, run, Unfit(str(error)))

    def stopped(self, task: Task[..., Any], run: Run, remark: str = "") -> Outcome:
        """Of a handler that was told to stop from here."""
        match run.stop:
            case "cancelled":
                return Outcome("cancelled", error=f"cancelled while it ran{remark}")
            case "returned" | "lost":
                return Outcome("returned", error=f"given back: the daemon stopped{remark}")
            case "exited":
                assert run.exit is not None
                return self.raised(task, run, run.exit)
            case _:
                limit = task.timeout or self._settings.job_timeout
                return self._failure(task, run, f"timeout: it ran longer than {limit:g} s{remark}")

    def raised(self, task: Task[..., Any], run: Run, error: BaseException) -> Outcome:
        """Of a handler that raised."""
        if run.stop == "cancelled":
            return Outcome("cancelled", error=f"cancelled while it ran, then {describe(error)}")
        try:
            decided = decision(error)
        except BadDelay as wrong:
            return self._failure(task, run, describe(error, f" ({wrong})"))
        match decided:
            case Snooze():
                return Outcome("snooze", error=str(decided), delay=decided.delay)
            case Expired():
                return Outcome("cancelled", error=str(decided))
            case Discard() | Unfit():
                return Outcome("failed", error=str(decided))
            case RetryAfter():
                return self._failure(task, run, str(decided), decided.delay)
        text = describe(error)
        return self._failure(task, run, text) if may_be_retried(task, error) else Outcome("failed", error=text)

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


def task_input(task: Task[..., Any], text: str | bytes) -> tuple[Any, Mapping[str, Any]]:
    """A job's payload, and the arguments of its handler that it makes. Raises Unfit."""
    try:
        payload = codec.loads(text)
        return payload, task.arguments.restored(payload)
    except PayloadError as error:
        raise Unfit(str(error)) from None


def may_be_retried(task: Task[..., Any], error: BaseException) -> bool:
    """Whether this error is among those that the task retries."""
    if isinstance(error, Reported):
        return error.again
    try:
        if isinstance(error, BaseExceptionGroup):  # what was decided beside an error counts for nothing
            error = error.split(Control)[1] or error
        return task.retry.covers(error)
    except BaseException:  # noqa: BLE001 - a class of users may raise anything when it is asked what it is
        return True


def describe(error: BaseException, remark: str = "") -> str:
    """What was raised, in one line, and then the traceback."""
    if isinstance(error, Reported):
        return str(error)[:MAX_ERROR]
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):  # these tell the reader nothing
        trace = trace.tb_next
    try:
        first = _first_line(error)
        text = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:  # noqa: BLE001 - notes that cannot be read, groups within groups without end
        first = line_of(error)
        text = f"{''.join(traceback.format_tb(trace))}{first}\n"
    return f"{first}{remark}\n{text}"[:MAX_ERROR]


def _first_line(error: BaseException) -> str:
    summary = traceback.TracebackException(type(error), error, None)
    summary.__notes__ = None  # they would come last
    return list(summary.format_exception_only())[-1].strip().splitlines()[0]
