"""Runs: what is claimed, and how it ends."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from workerd.remote.words.base import MOST, Id, Json, Key, Line, Name, Seconds, Small, Word, example


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
    delay: Seconds | None = Field(
        None,
        description="Until the next attempt, of retry and snooze; by default a minute, doubled with each failure up to 1 h.",
    )
    ago: Seconds = 0.0
    ran: Seconds = 0.0
    ttl: Seconds = 604800.0
    progress: Annotated[float, Field(ge=0, le=1)] | None = None
    lines: list[LogLine] = Field(default_factory=list)


class Finish(Word):
    model_config = example(
        ends=[{"n": 7, "pos": 12, "id": 42, "outcome": "succeeded", "result": '{"pages": 3}', "ago": 1.9, "ran": 1.8}]
    )

    ends: Annotated[list[End], Field(max_length=MOST)]


class FinishDone(BaseModel):
    held: list[bool] = Field(
        description="Whether the lease held it still; else the job was taken back, and nothing was written."
    )


class Claim(Word):
    """What a node wants. Successes in `ends` are written in the same transaction."""

    model_config = example(batch=2, wait=20)

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
    ends: Annotated[list[End], Field(max_length=MOST)] = Field(default_factory=list)


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


class Claims(BaseModel):
    """What was claimed, in one lane. Everything about these jobs names `n` and the `pos` of each."""

    n: int
    lane: int | None = Field(description="null: there is nothing in any lane.")
    last: int = Field(description="The highest ticket that need not be looked at again.")
    jobs: list[ClaimedJob]
    held: list[bool] = Field(description="For each of `ends`, as `finish` answers.")
    oldest_xid: int
    next_xid: int


class Release(Word):
    """Tickets of jobs that were not started."""

    model_config = example(n=7, positions=[12, 13])

    n: Id
    positions: Annotated[list[Id], Field(max_length=10 * MOST)]
    ttl: Seconds = 2592000.0


class Started(Held):
    model_config = example(n=7, pos=12, id=42, key="a.pdf")

    key: Key
