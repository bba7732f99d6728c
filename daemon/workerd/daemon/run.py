"""A run: one attempt of a job, from its start to its end."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import asyncio

    from workerd.daemon.current import Attempt
    from workerd.job import Job
    from workerd.job_lines import JobLines
    from workerd.queue.claim import Claimed

Stop = Literal["cancelled", "returned", "lost", "timeout", "exited"]


@dataclass(slots=True, eq=False)
class Run:
    """A job that is being run by the asyncio task `worker`; `deadline`, `started` and `halted` are monotonic seconds."""

    claimed: Claimed
    job: Job | None  # None: the handler does not want it
    worker: asyncio.Task[Any]
    started: float
    deadline: float
    stop: Stop | None = None  # why it was told to stop
    halted: float = 0.0  # when
    progress: float | None = None
    committed: bool = False  # finish_in was called
    exit: BaseException | None = None  # what something that it had started raised to end the whole program
    written_off: bool = False  # its job has ended without it: whatever it still does counts for nothing

    @property
    def attempt(self) -> Attempt:
        return self.claimed.id, self.claimed.task, self.claimed.attempt

    @property
    def lines(self) -> JobLines | None:
        """What the job has logged, if it did."""
        return None if self.job is None else self.job.lines

    def halt(self, why: Stop) -> None:
        """Cancel the handler; the outcome says why."""
        if self.stop is None:
            self.stop = why
            self.halted = monotonic()
            self.worker.cancel()
