"""Samples: what the fleet did in each second, minute and hour, for charts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Self, TypeVar

from workerd.queue.tally import BUCKETS, quantile

if TYPE_CHECKING:
    from workerd.job import AnyConnection

_Number = TypeVar("_Number", int, float)

KEPT = {1: 600, 60: 86400, 3600: 90 * 86400}  # by span (seconds): for how many seconds its samples are kept
_COARSER = {1: 60, 60: 3600}

_COUNTED = """
    SELECT clock_timestamp(), slot, succeeded, failed, cancelled, retried, run, wait
    FROM (VALUES (1)) AS always LEFT JOIN workerd.tally
        ON slot >= date_bin('5 minutes', now(), 'epoch'::timestamptz) - interval '5 minutes'
"""
_COLUMNS = "at, covers, succeeded, failed, cancelled, retried, queued, running, scheduled, oldest"
_KEEP = f"""
    INSERT INTO workerd.sample ({_COLUMNS}, span, run, wait, run_p50, run_p95, wait_p95)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants
_NOT_ADDED_UP = f"""
    SELECT {_COLUMNS}, run, wait FROM workerd.sample
    WHERE span = $1 AND at < date_bin(make_interval(secs => $2), now(), 'epoch'::timestamptz)
        AND at >= coalesce((SELECT max(at) + make_interval(secs => $2) FROM workerd.sample WHERE span = $2), '-infinity')
    ORDER BY at
"""  # noqa: S608 - constants
_PRUNE = "DELETE FROM workerd.sample WHERE span = $1 AND at < now() - make_interval(secs => $2)"
_READ = """
    SELECT date_bin(make_interval(secs => $3), at, 'epoch'::timestamptz) AS at, sum(covers) AS covers,
        sum(succeeded)::bigint AS succeeded, sum(failed)::bigint AS failed, sum(cancelled)::bigint AS cancelled,
        sum(retried)::bigint AS retried, max(queued) AS queued, max(running) AS running, max(scheduled) AS scheduled,
        max(oldest) AS oldest_queued_s, max(run_p50) AS run_p50_ms, max(run_p95) AS run_p95_ms, max(wait_p95) AS wait_p95_ms
    FROM workerd.sample WHERE span = $1 AND at > now() - make_interval(secs => $2) GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many attempts ended how, and the histograms (see `tally`) of their run times and waits."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    run: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    wait: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def __add__(self, other: Self) -> Counts:
        return self._with(other, 1)

    def __sub__(self, other: Self) -> Counts:
        return self._with(other, -1)

    def _with(self, other: Self, sign: int) -> Counts:
        return Counts(
            self.succeeded + sign * other.succeeded,
            self.failed + sign * other.failed,
            self.cancelled + sign * other.cancelled,
            self.retried + sign * other.retried,
            [a + sign * b for a, b in zip(self.run, other.run, strict=True)],
            [a + sign * b for a, b in zip(self.wait, other.wait, strict=True)],
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """`covers`: the seconds in which `counts` was counted; the numbers of jobs are None where they could not be counted."""

    at: datetime
    covers: float
    counts: Counts
    queued: int | None = None
    running: int | None = None
    scheduled: int | None = None
    oldest: float | None = None  # seconds for which the first in line had been queued


async def counted(connection: AnyConnection) -> tuple[datetime, dict[datetime, Counts]]:
    """Now, and what all nodes have counted, by the five minutes in which they did: these ones and those before."""
    rows = await connection.fetch(_COUNTED)
    found: dict[datetime, Counts] = {}
    for _, slot, *values in rows:
        if slot is not None:
            found[slot] = found.get(slot, Counts()) + Counts(*values)
    return rows[0][0], found


async def keep(connection: AnyConnection, span: int, samples: list[Sample]) -> None:
    """Write samples of a span (1, 60 or 3600 seconds)."""
    await connection.executemany(_KEEP, [_values(each, span) for each in samples])


async def add_up(connection: AnyConnection) -> None:
    """Make the minutes and hours that have passed of what is shorter, and forget what is past its time."""
    for span, coarser in _COARSER.items():
        found = [_sample(row) for row in await connection.fetch(_NOT_ADDED_UP, span, coarser)]
        await keep(connection, coarser, _longer(found, coarser))
    for span, seconds in KEPT.items():
        await connection.execute(_PRUNE, span, seconds)


async def read(connection: AnyConnection, span: int, step: int) -> list[dict[str, Any]]:
    """The samples of a span, the oldest first, those of `step` seconds as one: counts added up, of anything else the highest.

    `covers`: the seconds in which jobs were counted. Quantiles are in milliseconds, None where nothing ended.
    """
    return [dict(row) for row in await connection.fetch(_READ, span, KEPT[span], step)]


def _values(sample: Sample, span: int) -> tuple[Any, ...]:
    counts = sample.counts
    return (
        sample.at,
        sample.covers,
        counts.succeeded,
        counts.failed,
        counts.cancelled,
        counts.retried,
        sample.queued,
        sample.running,
        sample.scheduled,
        sample.oldest,
        span,
        counts.run,
        counts.wait,
        quantile(counts.run, 0.5),
        quantile(counts.run, 0.95),
        quantile(counts.wait, 0.95),
    )


def _sample(row: Any) -> Sample:
    at, covers, succeeded, failed, cancelled, retried, queued, running, scheduled, oldest, run, wait = row
    counts = Counts(succeeded, failed, cancelled, retried, run, wait)
    return Sample(at, covers, counts, queued, running, scheduled, oldest)


def _longer(samples: list[Sample], span: int) -> list[Sample]:
    """What follows each other within one `span` (seconds) as one."""
    parts = groupby(samples, lambda each: int(each.at.timestamp()) // span)
    return [_sum(list(part), number * span) for number, part in parts]


def _sum(parts: list[Sample], began: int) -> Sample:
    """What follows each other as one that began at `began` (Unix time): counts add up, of depths the highest counts."""
    total = replace(parts[0], at=datetime.fromtimestamp(began, UTC))
    for each in parts[1:]:
        total = replace(
            total,
            covers=total.covers + each.covers,
            counts=total.counts + each.counts,
            queued=_highest(total.queued, each.queued),
            running=_highest(total.running, each.running),
            scheduled=_highest(total.scheduled, each.scheduled),
            oldest=_highest(total.oldest, each.oldest),
        )
    return total


def _highest(*values: _Number | None) -> _Number | None:
    return max((value for value in values if value is not None), default=None)
