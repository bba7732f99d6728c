"""A plain model of what jobs are asked for: others to wait for, keys, limits, nodes. Who leads has always looked when it is compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FINAL = ("succeeded", "failed", "cancelled")
OPEN = ("queued", "running", "scheduled", "blocked")
CONCURRENCY = 2  # of the task `limited`


@dataclass
class Job:
    id: int
    task: str
    state: str
    key: str | None = None
    key_until: str = "finished"
    holds_key: bool = False
    later: bool = False  # it is to be scheduled when nothing holds it back any more
    pin: str | None = None
    parents: dict[int, str | None] = field(default_factory=dict)  # how each has ended
    need: str = "all"
    good: str = "succeeded"  # or finished
    cancel: bool = False  # while it runs

    @property
    def decided(self) -> Literal["go", "never"] | None:
        ends = list(self.parents.values())
        fit = [end for end in ends if end == "succeeded" or (self.good == "finished" and end is not None)]
        unfit = [end for end in ends if end not in ("succeeded", None) and self.good == "succeeded"]
        if len(fit) == len(ends) if self.need == "all" else fit:
            return "go"
        return "never" if (unfit if self.need == "all" else len(unfit) == len(ends)) else None


class Model:
    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}

    def states(self) -> dict[int, str]:
        return {job.id: job.state for job in self.jobs.values()}

    def keys(self) -> set[tuple[str, int]]:
        return {(job.key, job.id) for job in self.jobs.values() if job.key is not None and job.holds_key}

    def holder(self, key: str | None) -> Job | None:
        return next((job for job in self.jobs.values() if key is not None and job.key == key and job.holds_key), None)

    def those(self, *states: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.state in states]

    def add(self, job: Job) -> None:
        job.holds_key = job.key is not None
        self.jobs[job.id] = job
        for parent in job.parents:
            end = self.jobs[parent].state
            job.parents[parent] = end if end in FINAL else None
        job.state = "blocked" if job.parents else self._free(job)
        self._settle()

    def move(self, job: Job, later: bool) -> None:
        """Another enqueue with its key gives it another time."""
        if job.state == "running":
            return
        job.later = later
        if job.state != "blocked":
            job.state = self._free(job)

    def start(self, job: Job) -> None:
        job.state = "running"
        if job.key_until == "started":
            job.holds_key = False

    def end(self, job: Job, how: str) -> None:
        """`how` is a final state, or scheduled."""
        if how == "scheduled" and job.cancel:
            how = "cancelled"
        job.state, job.cancel = how, False
        if how in FINAL:
            self._ended(job)
            self._settle()

    def cancel(self, job: Job) -> None:
        if job.state == "running":
            job.cancel = True
        elif job.state in OPEN:
            self.end(job, "cancelled")

    def retry(self, job: Job) -> None:
        if job.state in ("failed", "cancelled"):
            if self.holder(job.key) is not None:
                return
            job.holds_key = job.key is not None
            job.state = "queued"
        elif job.state in ("scheduled", "blocked"):
            job.state = "queued"

    def pass_time(self) -> None:
        for job in self.jobs.values():
            job.later = False
            if job.state == "scheduled":
                job.state = "queued"

    @staticmethod
    def _free(job: Job) -> str:
        return "scheduled" if job.later else "queued"

    def _ended(self, job: Job) -> None:
        job.holds_key = False
        for child in self.jobs.values():
            if child.state == "blocked" and job.id in child.parents:
                child.parents[job.id] = job.state

    def _settle(self) -> None:
        while decided := [job for job in self.those("blocked") if job.decided is not None]:
            for job in decided:
                if job.decided == "go":
                    job.state = self._free(job)
                else:
                    job.state = "cancelled"
                    self._ended(job)
