"""Quarantine: a job whose row or end the database refuses is failed with the reason, and hinders no other one.

Nothing is examined beforehand. A statement that is refused is run again for fewer rows until the refused one is found.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import asyncpg

from workerd.codec import storable
from workerd.errors import RequestRefused
from workerd.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from workerd.job import AnyConnection
    from workerd.queue.claim import Claimed
    from workerd.queue.finish import Finished

Row = TypeVar("Row")
Result = TypeVar("Result")

# Classes of SQLSTATE that are refusals of data: cardinality, data, integrity, limits of the program, and what functions raise.
_REFUSALS = frozenset({"21", "22", "23", "54", "P0"})
_LONGEST = 16_000  # characters of a reason

_CAREFUL = "SET LOCAL workerd.careful = on"
_HELD = "SELECT workerd.quarantine_held($1, $2, $3, $4)"
_RECENT = (
    "SELECT id, task, reason FROM workerd.quarantined WHERE at > now() - interval '1 day' ORDER BY at DESC, id DESC"
)
_NEW = "SELECT id, task, reason FROM workerd.quarantined WHERE at = now()"  # of this transaction

log = logging.getLogger(__name__)


class Quarantined(NamedTuple):
    id: int
    task: str
    reason: str


async def recent(connection: AnyConnection) -> list[Quarantined]:
    """The jobs of the last day, the newest first."""
    return [Quarantined(*row) for row in await connection.fetch(_RECENT)]


def is_refusal(error: BaseException) -> bool:
    """Whether data is refused: then to try the same again is in vain, as it is not after trouble of the connection or the server."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in _REFUSALS
    return isinstance(error, RequestRefused)


async def isolate(
    rows: Sequence[Row],
    run: Callable[[Sequence[Row]], Awaitable[list[Result]]],
    alone: Callable[[Row, Exception], Awaitable[Result]],
) -> list[Result]:
    """What `run` returns for each row. Where it is refused it is run for each half; `alone` deals with a row that is refused by itself."""
    try:
        return await run(rows)
    except Exception as error:
        if not is_refusal(error):
            raise
        if len(rows) == 1:
            return [await alone(rows[0], error)]
    half = len(rows) // 2
    return [*await isolate(rows[:half], run, alone), *await isolate(rows[half:], run, alone)]


async def held(connection: AnyConnection, job: Claimed, reason: str) -> bool:
    """Fail a job that its node holds; False when no lease holds it any more."""
    text = storable(reason)[:_LONGEST]
    for n in (job.n, job.split):
        if n is not None and await connection.fetchval(_HELD, job.node, n, job.pos, text):
            _tell(job.id, job.task, text)
            return True
    return False


async def end(connection: AnyConnection, ended: Finished, error: Exception) -> bool:
    """Fail a job whose end is refused, keeping what its attempt said; False when no lease holds it any more."""
    reason = refused(ended, error)
    if not await held(connection, ended.job, reason):
        return False
    ended.outcome = Outcome("failed", error=reason)
    return True


def refused(ended: Finished, error: Exception) -> str:
    """The reason for which a job is failed whose end is refused."""
    said = "" if ended.outcome.error is None else f"\n\n{ended.outcome.error}"
    return f"its end ({ended.outcome.ending}) cannot be written: {error}{said}"


async def sifted(
    connection: AnyConnection, query: str, *arguments: object, timeout: float | None = None
) -> list[asyncpg.Record]:
    """The rows of a statement of the leader. Where it is refused it is run again so that the jobs it is refused for are quarantined."""
    try:
        rows: list[asyncpg.Record] = await connection.fetch(query, *arguments, timeout=timeout)
    except asyncpg.PostgresError as error:
        if not is_refusal(error):
            raise
        return await told(connection, query, *arguments, timeout=timeout)
    return rows


async def told(
    connection: AnyConnection, query: str, *arguments: object, timeout: float | None = None
) -> list[asyncpg.Record]:
    """The rows of a statement that may quarantine jobs; which they are goes to the log."""
    async with connection.transaction():
        await connection.execute(_CAREFUL)
        rows: list[asyncpg.Record] = await connection.fetch(query, *arguments, timeout=timeout)
        found = [Quarantined(*row) for row in await connection.fetch(_NEW)]
    for job in found:
        _tell(*job)
    return rows


def _tell(job_id: int, task: str, reason: str) -> None:
    log.error("job %s (%s) is quarantined: %s", job_id, task or "?", reason, extra={"job": job_id, "task": task})
