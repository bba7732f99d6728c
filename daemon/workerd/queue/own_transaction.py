"""Transactions that the library opens itself: it runs them again, and says whether they were written."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from workerd.errors import DatabaseError, TransactionConflict, WorkerdError, WriteUnknown
from workerd.queue.driver_errors import RAW, answered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from workerd.job import AnyConnection

R = TypeVar("R")

PAUSES = (0.01, 0.05, 0.2, 0.5)  # seconds at most before each further try: others are to get through meanwhile


@asynccontextmanager
async def transaction(connection: AnyConnection) -> AsyncIterator[None]:
    """A transaction: the errors of its BEGIN and COMMIT are ours, what is raised in its block passes as it is."""
    own = connection.transaction()
    await uncommitted(own.start())
    try:
        yield
    except BaseException:
        with contextlib.suppress(*RAW):  # a session that has ended has rolled it back
            await own.rollback()
        raise
    await answered(own.commit())


async def uncommitted(query: Awaitable[R]) -> R:
    """As `answered`, of a query before the COMMIT: a lost connection leaves nothing open."""
    try:
        return await answered(query)
    except WriteUnknown as error:
        raise rolled_back(error) from error.__cause__


def rolled_back(error: WorkerdError) -> WorkerdError:
    """What an error means in a transaction that was not committed: there a lost connection leaves nothing open."""
    if not isinstance(error, WriteUnknown):
        return error
    return DatabaseError(f"the connection was lost, and with it the transaction: nothing was written ({error.reason})")


async def again(work: Callable[[], Awaitable[R]]) -> R:
    """Do this, and once more where another transaction was in the way: the server has rolled ours back."""
    for longest in PAUSES:
        try:
            return await work()
        except TransactionConflict:
            await asyncio.sleep(random.uniform(0, longest))
    return await work()
