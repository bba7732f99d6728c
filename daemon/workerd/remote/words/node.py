"""Nodes: how one enters and lives, where it may look, what it is told."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from workerd.remote.words.base import Id, Key, Line, Name, Seconds, Small, Word, example


class TaskSchedule(Word):
    """One that a task declares."""

    kind: Literal["cron", "every", "at"]
    rule: Key
    tz: Name = "UTC"
    payload: dict[str, Any] = Field(default_factory=dict)
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
    schedules: dict[Name, TaskSchedule] = Field(default_factory=dict)


class NewNode(Word):
    """A node that enters. It lives while its heartbeats come: dead after three that did not."""

    model_config = example(name="edge-1", tasks=[{"name": "ocr_extract", "queue": "ocr"}], workers=2)

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
    tasks: Annotated[list[TaskWords], Field(min_length=1, max_length=10_000)]
    runs: list[Name] | None = Field(None, description="Those of the tasks that this node runs; by default all.")
    queues: list[Name] = Field(default_factory=list, description="Those that it serves; none: all.")
    workers: Annotated[int, Field(ge=0, le=10_000)] = 1
    heartbeat: Annotated[float, Field(ge=0.1, le=3600)] = 5.0
    id: Annotated[int, Field(ge=1, lt=2**63)] | None = Field(
        None, description="Never used before; by default one is made."
    )
    pid: Small = 0
    version: Annotated[str, Field(max_length=100, pattern=r"^[^\x00]*$")] = ""
    ttls: list[Seconds] = Field(
        default_factory=list, max_length=1000, description="For how long its ended jobs may be kept."
    )


class Registered(BaseModel):
    id: str = Field(description="The id of the node, as text.")


class Beat(Word):
    model_config = example(workers=2, busy=1, jobs_done=120, jobs_failed=3, rss=64_000_000, lag=0.0004)

    workers: Small = 0
    busy: Small = 0
    draining: bool = False
    jobs_done: Id = 0
    jobs_failed: Id = 0
    rss: Id | None = Field(None, description="Bytes of memory.")
    lag: Seconds | None = Field(None, description="That its loop took to come to what is new.")


class LaneWords(BaseModel):
    id: int
    queue: str
    priority: int


class LeaseWords(BaseModel):
    n: int
    tickets: list[int]
    cancel: list[int] = Field(description="Those of them whose jobs are to be cancelled.")


class OrderWords(BaseModel):
    id: int
    verb: str
    arguments: dict[str, Any]


class OrderDone(Word):
    model_config = example(result={"workers": 4})

    result: dict[str, Any] | None = None
    error: Line | None = None


class Notices(BaseModel):
    cursor: str
    notices: list[str] = Field(
        description="`ready`, `rewind LANE TICKET`, `lanes`, `cancel NODE`, `order NODE`, `look`: some were missed."
    )
