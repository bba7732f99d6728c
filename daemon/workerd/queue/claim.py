"""Claim: take queued jobs for a node under a lease."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import asyncpg

from workerd import codec
from workerd.errors import LaneLocked, NodeDead, PayloadError
from workerd.queue import quarantine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.job import AnyConnection
    from workerd.queue.lane import Lane

BEGINNING = -(2**63)  # below every ticket
NODE_DEAD = "WD001"  # the SQLSTATE of that refusal
TRIES = 100  # of a claim that is refused
UNREADABLE = (ValueError, TypeError, ArithmeticError, RecursionError, PayloadError)  # of what a claimed row holds
MAX_BATCH = 500  # more scattered tickets would bloat the lease row

_CLAIM = "SELECT * FROM workerd.claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_QUARANTINE_NEXT = "SELECT workerd.quarantine_next($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_MARKS = "SELECT (m ->> 0)::bigint, m::text FROM jsonb_array_elements($1::text::jsonb) AS m"
_PAYLOADS = "SELECT * FROM workerd.payloads($1, $2)"


@dataclass(slots=True, eq=False)
class Claimed:
    """A job that this node holds. (node, n) is the lease, `pos` the ticket: together the fence of every write about it."""

    node: int
    n: int
    lane: Lane
    pos: int
    id: int
    task: str
    waited: float  # seconds between queued and claimed
    payload: str  # JSON
    attempt: int = 1
    failures: int = 0
    crashes: int = 0
    max_retries: int | None = None
    key: str | None = None
    options: dict[str, Any] | None = None  # what few jobs are asked for; None: nothing
    start_by: float | None = None  # monotonic: past it the job is not to start
    split: int | None = None  # a lease to which it may have been moved: asked for, the answer not heard yet


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a claim asks for: up to `batch` jobs of the first of `lanes` (each with its low bound) that has any of `tasks`.

    `n` is the number of the lease. `free`: a worker waits, so a job with a crash may be taken; `alone`: also one whose crashes
    have reached `last_chance`. `rest`: where nothing is there, let the next enqueue notify this connection.
    """

    n: int
    lanes: Sequence[tuple[Lane, int]]
    batch: int
    tasks: Sequence[str]
    free: bool
    alone: bool
    last_chance: int
    rest: bool = False

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (
            self.n,
            [lane.id for lane, _ in self.lanes],
            [low for _, low in self.lanes],
            min(self.batch, MAX_BATCH),
            self.tasks,
            self.free,
            self.alone,
            self.last_chance,
            self.rest,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one claim.

    `lane` is None when every lane was empty from its low bound on; `last` is the highest ticket that need not be looked at again.
    Then a transaction that has not committed a ticket drawn before has an id below `next_xid`; none below `oldest_xid` is left.
    """

    lane: Lane | None
    last: int
    jobs: list[Claimed]
    oldest_xid: int = 0
    next_xid: int = 0


async def claim(connection: AnyConnection, node: int, wanted: Wanted) -> Answer:
    """Claim for a node. Raises NodeDead when it was declared dead, LaneLocked when the lane stays locked."""
    try:
        row = await connection.fetchrow(_CLAIM, node, *wanted.arguments)
    except asyncpg.PostgresError as error:
        if not _is_of_a_row(error):
            raise refusal(error) from error
        row = await _claim_before_refused(connection, node, wanted, error)
    assert row is not None
    return await read(connection, node, wanted, row)


async def _claim_before_refused(
    connection: AnyConnection, node: int, wanted: Wanted, error: asyncpg.PostgresError
) -> asyncpg.Record | None:
    """Claim what lies before the job that a claim was refused for; that one is quarantined where it is the first. So nothing is skipped."""
    batch = min(wanted.batch, MAX_BATCH)
    for _ in range(TRIES):
        try:
            if batch > 1:
                batch //= 2
            else:
                await quarantine.told(connection, _QUARANTINE_NEXT, node, *wanted.arguments)
            return await connection.fetchrow(_CLAIM, node, *replace(wanted, batch=batch).arguments)
        except asyncpg.PostgresError as again:
            if not _is_of_a_row(again):
                raise refusal(again) from again
            error = again
    raise error


def _is_of_a_row(error: asyncpg.PostgresError) -> bool:
    """Whether a claim was refused for what a row holds."""
    return isinstance(error, (asyncpg.DataError, asyncpg.ProgramLimitExceededError))


def refusal(error: asyncpg.PostgresError) -> Exception:
    """What a failed claim raises."""
    if error.sqlstate == NODE_DEAD:
        return NodeDead(str(error))
    return LaneLocked(str(error)) if isinstance(error, asyncpg.LockNotAvailableError) else error


async def read(connection: AnyConnection, node: int, wanted: Wanted, row: asyncpg.Record) -> Answer:
    """What the database answered, with the payloads that were left out of it."""
    if row["lane"] is None:
        return Answer(None, BEGINNING, [], row["oldest_xid"] or 0, row["next_xid"] or 0)
    lane = next(lane for lane, _ in wanted.lanes if lane.id == row["lane"])
    if not row["pos"]:
        return Answer(lane, row["last"] or BEGINNING, [])
    n, payloads = wanted.n, row["payload"] or [None] * len(row["pos"])
    jobs = [
        Claimed(node, n, lane, *columns)
        for columns in zip(row["pos"], row["id"], row["task"], row["waited"], payloads, strict=True)
    ]
    try:
        if row["marks"] is not None:
            _mark(jobs, json.loads(row["marks"]))
        readable = math.isfinite(sum(row["waited"]))
    except UNREADABLE:
        readable = False
    if not readable:
        jobs = await _readable(connection, jobs, row["marks"])
    if None in payloads:
        jobs = await _complete(connection, lane, jobs)
    return Answer(lane, row["last"], jobs)


def _mark(jobs: list[Claimed], marks: list[Any]) -> None:
    """Set what is not as in a first attempt. Raises one of UNREADABLE."""
    by_pos = {job.pos: job for job in jobs}
    for pos, spent, *rest in marks:
        job = by_pos.get(pos)
        if job is not None:
            job.attempt = spent + 1
            job.failures, job.crashes, job.max_retries, job.key, *asked = rest
            if asked:
                job.options, left = asked
                job.start_by = None if left is None else monotonic() + left
                _check(job.options)


def _check(options: Any) -> None:
    """Raise ValueError or PayloadError for options that are not as an enqueue makes them, or which a manager could not pass on."""
    if not isinstance(options, dict) or not isinstance(options.get("trace", {}), dict):
        raise ValueError("its options are not a JSON object as an enqueue makes it")  # noqa: TRY004 - of a value in a row
    codec.dumps(options, "the value of its options")


async def _readable(connection: AnyConnection, jobs: list[Claimed], marks: str | None) -> list[Claimed]:
    """Those of the claimed jobs whose rows can be read; the others are quarantined."""
    rows = await connection.fetch(_MARKS, marks) if marks is not None else []
    texts = {pos: text for pos, text in rows}  # noqa: C416 - of records
    found = []
    for job in jobs:
        try:
            if not math.isfinite(job.waited):
                raise ValueError("its queued_at is infinite")
            if job.pos in texts:
                _mark([job], [json.loads(texts[job.pos])])
            found.append(job)
        except UNREADABLE as error:
            await quarantine.held(connection, job, f"it cannot be started: {error}")
    return found


async def _complete(connection: AnyConnection, lane: Lane, jobs: list[Claimed]) -> list[Claimed]:
    """Fetch the payloads that are missing.

    A job without its row was taken back and ended elsewhere between the two queries: this node had been declared dead.
    """
    missing = [job for job in jobs if job.payload is None]
    rows = await connection.fetch(_PAYLOADS, lane.id, [job.pos for job in missing])
    payloads = {row["pos"]: row["payload"] for row in rows}
    for job in missing:
        job.payload = payloads.get(job.pos, "")
    return [job for job in jobs if job.payload]
