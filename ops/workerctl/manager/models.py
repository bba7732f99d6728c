"""What goes in and out, as OpenAPI describes it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, create_model

from workerd.asked import End, EnqueueOptions, Need, Whole
from workerd.remote.words.base import example
from workerd.units import LONGEST

State = Literal["queued", "running", "scheduled", "blocked", "succeeded", "failed", "cancelled"]
JobId = Annotated[int, Field(ge=1, lt=2**63, description="The id of a job.")]
Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
MANY = 10_000  # jobs of one request


class Given(BaseModel):
    """What clients send: a member that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid")


def _member(hint: Any) -> Any:
    """A member of a request for an option, as `EnqueueOptions` has it: its type and default."""
    kind, option = get_args(hint)
    if option.default is None:
        limits: Any = {"ge": option.check.least, "le": option.check.most} if isinstance(option.check, Whole) else {}
        wanted = Text if kind == str | None else kind
        return Annotated[wanted | None, Field(description=option.help, **limits)], None
    return Annotated[kind, Field(description=option.help)], option.default


# As JSON has them: durations in seconds, and each argument of `After` for itself.
Seconds = Annotated[float, Field(ge=0, le=LONGEST)]
TRANSLATED = frozenset({"delay", "after", "deadline"})
_Options: Any = create_model(
    "_Options",
    __base__=Given,
    **{name: _member(hint) for name, hint in EnqueueOptions.__annotations__.items() if name not in TRANSLATED},
)


class NewJob(_Options):  # type: ignore[misc]  # mypy does not see its members
    """A job to enqueue, with the options of every enqueue."""

    model_config = example(task="ocr_extract", payload={"path": "a.pdf"}, priority=5, key="a.pdf")

    task: Text
    payload: dict[str, Any] = Field(default_factory=dict)
    delay: Annotated[Seconds, Field(description="Seconds.")] | None = None
    after: Annotated[list[JobId], Field(max_length=MANY, description="Jobs to wait for.")] = []  # noqa: RUF012 - pydantic copies it
    after_need: Need = "all"
    after_end: End = "succeeded"
    deadline: Annotated[datetime, Field(description="A job that has not started by then is cancelled.")] | None = None
    deadline_in: Annotated[Seconds, Field(description="The same, in seconds from now.")] | None = None


class Signal(Given):
    """An answer to a job that waits for an event."""

    model_config = example(event="approved", payload={"by": "Ada"})

    event: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
    payload: Any = None


class Signalled(BaseModel):
    first: bool = Field(description="False: the event was answered before, and the first answer holds.")


class Enqueued(BaseModel):
    id: int


class EnqueuedMany(BaseModel):
    ids: list[int]


class JobSummary(BaseModel):
    """A job without what it carries."""

    id: int
    task: str
    queue: str
    state: State
    priority: int
    attempt: int
    max_retries: int | None
    progress: float | None
    message: str | None = None
    key: str | None
    enqueued_at: str
    run_at: str | None
    started_at: str | None
    finished_at: str | None
    node: str | None
    error: str | None = Field(description="The first line of the last failure.")


class JobPage(BaseModel):
    jobs: list[JobSummary]
    next: str | None = Field(description="The cursor of the page behind this one; null: there is none.")


class Attempt(BaseModel):
    attempt: int | None
    node: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    outcome: str
    error: str | None = None


class JobLine(BaseModel):
    attempt: int
    line: int
    at: str
    level: str
    message: str


class JobDetail(JobSummary):
    """A job with its attempts and what it has logged. What a sensitive task carries is null unless the token may operate."""

    payload: Any
    result: Any
    error: str | None = Field(description="The last failure, with its traceback.")
    failures: int
    retries_left: int | None
    attempts: list[Attempt]
    lines: list[JobLine]


class Changed(BaseModel):
    id: int
    was: str = Field(description="The state in which it was found.")


class JobFilter(Given):
    state: State | None = None
    queue: Text | None = None
    task: Text | None = None
    node: Text | None = None
    key: Text | None = None


class Bulk(Given):
    model_config = example(action="retry", filter={"state": "failed", "task": "ocr_extract"}, expected=12)

    action: Literal["retry", "cancel", "delete"]
    filter: JobFilter
    expected: Annotated[int, Field(ge=0)] | None = Field(
        None, description="How many fit, as was shown before; without it nothing is done but counting."
    )


class BulkDone(BaseModel):
    matched: int
    done: int
    refused: int


class QueueDepth(BaseModel):
    queue: str
    queued: int
    scheduled: int
    blocked: int
    running: int
    oldest_queued_s: float | None
    paused: bool


class Paused(BaseModel):
    queue: str
    paused: bool


class Purged(BaseModel):
    queue: str
    cancelled: int


class Node(BaseModel):
    id: str
    name: str
    state: str
    workers: int
    busy: int
    transport: str
    heartbeat_age_s: float
    version: str
    jobs_done: int
    jobs_failed: int
    pid: int
    queues: list[str]
    tasks: list[str]
    started_at: str | None
    rss_bytes: int | None = Field(description="Of the daemon, at its last beat.")
    loop_lag_ms: float | None
    runs: dict[str, int] = Field(description="How many jobs of each task it holds.")


class Scale(Given):
    model_config = example(workers=4)

    workers: Annotated[int, Field(ge=1, le=10_000)]


class Ordered(BaseModel):
    """What a node did, or that it has not taken the order yet."""

    node: str
    done: bool
    result: dict[str, Any] | None


class Schedule(BaseModel):
    name: str
    task: str
    queue: str | None
    priority: int | None
    kind: str
    rule: str
    tz: str
    words: str
    catch_up: str
    payload: dict[str, Any]
    paused: bool
    declared: bool
    last_at: str | None
    next: list[datetime | str]


class ScheduleChanged(BaseModel):
    name: str
    paused: bool


class TaskFigures(BaseModel):
    task: str
    succeeded: int
    failed: int
    retried: int
    cancelled: int
    success_rate: float | None
    per_hour: float
    run_p50_ms: float | None
    run_p95_ms: float | None
    run_p99_ms: float | None
    wait_p95_ms: float | None


class Stats(BaseModel):
    hours: float
    queues: list[QueueDepth]
    tasks: list[TaskFigures]


class Sample(BaseModel):
    """What the fleet did in some seconds: `covers` says in how many of them jobs were counted. Quantiles are null where nothing ended."""

    at: datetime
    covers: float
    succeeded: int
    failed: int
    cancelled: int
    retried: int
    queued: int | None = Field(description="The most there were; null: there were too many to be counted in time.")
    running: int | None
    scheduled: int | None
    oldest_queued_s: float | None
    run_p50_ms: float | None
    run_p95_ms: float | None
    wait_p95_ms: float | None


class Entry(BaseModel):
    """A change, of the record that keeps all of them."""

    id: int
    at: str
    who: str
    action: str
    target: str | None
    detail: dict[str, Any] | None


class Health(BaseModel):
    live: bool
    ready: bool
    reason: str | None = None
