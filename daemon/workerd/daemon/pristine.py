"""Whether the asyncio task in which a handler ran is as it was before: nothing of one job reaches the next."""

from __future__ import annotations

import asyncio
import decimal
from contextvars import Context, copy_context
from sys import getrefcount
from typing import Any
from weakref import getweakrefcount


class Pristine:
    """The current task as it is before the first handler runs in it.

    A handler has its task and context to itself: what it cancels, or sets in context variables, is its own. To make both for each
    attempt would cost as much as all the rest of a short job. So a worker goes on with them as long as nobody can reach the task and
    the context holds nothing new, and leaves its place to another one otherwise.
    """

    __slots__ = ("_decimal", "_references", "_task", "_weak_references")

    def __init__(self) -> None:
        self._task: Any = asyncio.current_task()  # and no other reference from here, they are counted
        configured = any(variable.name == "decimal_context" for variable in copy_context())
        self._decimal = decimal.getcontext().copy() if configured else None
        task = self._task
        self._references = getrefcount(task)
        self._weak_references = getweakrefcount(self._task)
        self._lend_decimal()

    def holds(self, context: Context) -> bool:
        """Whether a next handler may run in the task. To be asked when the one before, which has begun with a context like this,
        has ended, before anything is awaited.
        """
        task = self._task  # one reference more
        try:
            held = (
                getrefcount(task) == self._references  # nobody else has it: no timer that is to cancel it
                and getweakrefcount(task) == self._weak_references
                and not task.cancelling()
                and copy_context() == context
            )
        except BaseException:  # noqa: BLE001 - values of users are compared
            return False
        if self._decimal is not None:
            self._lend_decimal()
        return held

    def _lend_decimal(self) -> None:
        """The precision of `decimal` and its like are an object, which handlers change in place: the next has another one."""
        if self._decimal is not None:
            decimal.setcontext(self._decimal.copy())
