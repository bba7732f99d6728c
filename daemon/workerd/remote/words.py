"""What nodes and managers say to each other, as OpenAPI describes it. Durations and ages are seconds; leases, tickets and ids integers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Key = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
Id = Annotated[int, Field(ge=0, lt=2**63)]
Small = Annotated[int, Field(ge=0, lt=2**31)]
Few = Annotated[int, Field(ge=0, le=1_000_000)]  # what a node can count between two tellings
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Json = Annotated[str, Field(max_length=16_000_000, description="JSON, as text.", pattern=r"^[^\x00]*$")]
Line = Annotated[str, Field(pattern=r"^[^\x00]*$")]
MOST = 1000  # ends or tickets of one request


class Word(BaseModel):
    """What one side says: a member that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskSchedule(Word):
    """One that a task declares."""

    kind: Literal["cron", "every", "at"]
    rule: Key
    tz: Name = "UTC"
    payload: dict[str, Any] = {}
    catch_up: Literal["none", "last", "all"] = "last"
    queue: Name | None = None
    priority: Annotated[int, Field(ge=-32768, le=32767)] | None = None


class TaskWords(Word):
    """A task as its node declares it."""

    name: Name
    queue: Name = "default"
    priority: Annotated[int, Field(ge=-32768, le=32767)] = 0
    max_retries: Annotated[int, Field(ge=0, le=32767)] = 3
    sensitive: bool = False
    rate: Annotated[float, Field(ge=1e-9, le=1e9)] | None = Field(None, description="Starts a second.")
    concurrency: Annotated[int, Field(gt=0, lt=2**31)] | None = None
    limit_key: Name | None = None
    on_failure: Name | None = None
    schedules: dict[Name, TaskSchedule] = {}


class NewNode(Word):
    """A node that enters. It lives while its heartbeats come: dead after three that did not."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"name": "edge-1", "tasks": [{"name": "ocr_extract", "queue": "ocr"}], "workers": 2}
        }
    )

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
    tasks: Annotated[list[TaskWords], Field(min_length=1, max_length=10_000)]
    runs: list[Name] | None = Field(None, description="Those of the tasks that this node runs; by default all.")
    queues: list[Name] = Field([], description="Those that it serves; none: all.")
    workers: Annotated[int, Field(ge=0, le=10_000)] = 1
    heartbeat: Annotated[float, Field(ge=0.1, le=3600)] = 5.0
    id: Annotated[int, Field(ge=1, lt=2**63)] | None = Field(
        None, description="Never used before; by default one is made."
    )
    pid: Small = 0
    version: Annotated[str, Field(max_length=100, pattern=r"^[^\x00]*$")] = ""
    ttls: list[Seconds] = Field([], max_length=1000, description="For how long its ended jobs may be kept.")


class Registered(BaseModel):
    id: str = Field(description="The id of the node, as text.")


class Beat(Word):
    workers: Small = 0
    busy: Small = 0
    draining: bool = False
    jobs_done: Id = 0
    jobs_failed: Id = 0
    rss: Id | None = Field(None, description="Bytes of memory.")
    lag: Seconds | None = Field(None, description="That its loop took to come to what is new.")


class LogLine(Word):
    number: Annotated[int, Field(ge=1, lt=2**31)]
    age: Seconds = 0.0
    level: Literal["debug", "info", "warning", "error"] = "info"
    message: Line


class Held(Word):
    """A job that the node holds: lease and ticket, as the claim told them. `split`: a lease of its own, to which it may have been moved."""

    n: Id
    pos: Id
    id: Id
    attempt: Small = 1
    split: Id | None = None


class End(Held):
    """How an attempt ended. `ago`: since it started, `ran`: how long it ran, `ttl`: for how long the job is to be kept."""

    outcome: Literal["succeeded", "failed", "cancelled", "retry", "snooze", "returned"]
    result: Json | None = None
    error: Line | None = None
    delay: Seconds | None = Field(None, description="Until the next attempt, of retry and snooze.")
    ago: Seconds = 0.0
    ran: Seconds = 0.0
    ttl: Seconds = 604800.0
    progress: Annotated[float, Field(ge=0, le=1)] | None = None
    lines: list[LogLine] = []


class Finish(Word):
    ends: Annotated[list[End], Field(max_length=MOST)]


class FinishDone(BaseModel):
    held: list[bool] = Field(
        description="Whether the lease held it still; else the job was taken back, and nothing was written."
    )


class Claim(Word):
    """What a node wants. Successes in `ends` are written in the same transaction."""

    model_config = ConfigDict(json_schema_extra={"example": {"batch": 2, "wait": 20}})

    batch: Annotated[int, Field(ge=1, le=500)] = 1
    wait: Annotated[float, Field(ge=0, le=30)] = Field(0.0, description="How long the answer may wait for a job.")
    n: Annotated[int, Field(ge=1, lt=2**63)] | None = Field(
        None, description="Of the lease, never used before; by default one is made."
    )
    lanes: list[tuple[Small, Annotated[int, Field(ge=-(2**63), lt=2**63)]]] | None = Field(
        None,
        description="Where to look, each with the ticket from which on; by default in all lanes of the node's queues.",
    )
    tasks: list[Name] | None = Field(None, description="By default those that the node runs.")
    free: bool = Field(
        True, description="A worker is free at once: jobs whose node has died may be claimed, one at a time."
    )
    alone: bool = Field(True, description="No job on its last chance is held.")
    last_chance: Small = 2
    rest: bool = Field(False, description="Where nothing is there, tell by `notices` when something comes.")
    ends: Annotated[list[End], Field(max_length=MOST)] = []


class ClaimedJob(BaseModel):
    pos: int
    id: int
    task: str
    waited: float
    payload: str = Field(description="JSON, as text.")
    attempt: int
    failures: int
    crashes: int
    max_retries: int | None
    key: str | None
    options: dict[str, Any] | None
    start_in: float | None = Field(description="Past it the job is not to start.")


class Started(Held):
    key: Key


class LaneWords(BaseModel):
    id: int
    queue: str
    priority: int


class Claims(BaseModel):
    """What was claimed, in one lane. Everything about these jobs names `n` and the `pos` of each."""

    n: int
    lane: int | None = Field(description="null: there is nothing in any lane.")
    last: int = Field(description="The highest ticket that need not be looked at again.")
    jobs: list[ClaimedJob]
    held: list[bool] = Field(description="For each of `ends`, as `finish` answers.")
    oldest_xid: int
    next_xid: int


class LeaseWords(BaseModel):
    n: int
    tickets: list[int]
    cancel: list[int] = Field(description="Those of them whose jobs are to be cancelled.")


class Release(Word):
    """Tickets of jobs that were not started."""

    n: Id
    positions: Annotated[list[Id], Field(max_length=10 * MOST)]
    ttl: Seconds = 2592000.0


class Report(Held):
    fraction: Annotated[float, Field(ge=0, le=1)]
    message: Line | None = None


class Logged(Held):
    lines: list[LogLine]


class Reports(Word):
    """How far jobs are, and what they have logged."""

    reports: Annotated[list[Report], Field(max_length=10 * MOST)] = []
    logged: Annotated[list[Logged], Field(max_length=10 * MOST)] = []


class OrderWords(BaseModel):
    id: int
    verb: str
    arguments: dict[str, Any]


class OrderDone(Word):
    result: dict[str, Any] | None = None
    error: Line | None = None


class TallyWords(Word):
    """What was counted of one task of one queue; histograms of run times and waits by the places of `workerd.queue.tally`."""

    task: Name
    queue: Name
    succeeded: Few = 0
    failed: Few = 0
    cancelled: Few = 0
    retried: Few = 0
    run: Annotated[list[Few], Field(min_length=120, max_length=120)]
    wait: Annotated[list[Few], Field(min_length=120, max_length=120)]


class StepDone(Held):
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
    result: Json


class StepKept(BaseModel):
    result: str | None = Field(description="The one that holds; null: the job was taken back.")


class Look(Held):
    event: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
    timeout: Seconds


class Looked(BaseModel):
    answer: str | None = Field(description="JSON, as text.")
    left: float | None = Field(description="Until it has timed out; null without an answer: the job was taken back.")


class Notices(BaseModel):
    cursor: str
    notices: list[str] = Field(
        description="`ready`, `rewind LANE TICKET`, `lanes`, `cancel NODE`, `order NODE`, `look`: some were missed."
    )
