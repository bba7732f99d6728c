"""A worker goes on with its asyncio task only as long as nothing of a job is left in it."""

from __future__ import annotations

import asyncio
import decimal
import weakref
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import pytest

from workerd.daemon.pristine import Pristine

if TYPE_CHECKING:
    from collections.abc import Callable

tenant: ContextVar[object] = ContextVar("tenant", default=None)
left: list[Any] = []


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise SystemExit(3)

    __hash__ = None  # type: ignore[assignment]


def _set_and_reset() -> None:
    tenant.reset(tenant.set("ACME"))


@pytest.mark.parametrize(
    ("deed", "held"),
    [
        (lambda: None, True),
        (_set_and_reset, True),
        (lambda: tenant.set("ACME"), False),
        (lambda: left.append(asyncio.current_task()), False),
        (lambda: left.append(asyncio.current_task().cancel), False),  # type: ignore[union-attr]
        (lambda: left.append(weakref.ref(asyncio.current_task())), False),
        (lambda: asyncio.current_task().cancel(), False),  # type: ignore[union-attr]
    ],
)
async def test_what_is_left_is_noticed(deed: Callable[[], object], held: bool) -> None:
    async def work() -> bool:
        pristine = Pristine()
        context = copy_context()
        deed()
        return pristine.holds(context)

    worker = asyncio.create_task(work())
    await asyncio.wait([worker])
    left.clear()
    if not worker.cancelled():  # which is how the one ends that has cancelled itself
        assert worker.result() is held


async def test_values_that_cannot_be_compared_are_something_left() -> None:
    async def work() -> bool:
        tenant.set(Incomparable())
        pristine = Pristine()
        context = copy_context()
        tenant.set(Incomparable())
        return pristine.holds(context)

    assert not await asyncio.create_task(work())  # a task, so that no other test sees what it sets


async def test_what_the_application_has_set_of_decimal_is_there_for_each_job() -> None:
    async def work() -> None:
        decimal.setcontext(decimal.Context(prec=50))
        pristine = Pristine()
        for _ in range(2):
            context = copy_context()
            assert decimal.getcontext().prec == 50
            decimal.getcontext().prec = 3
            assert pristine.holds(context)

    await asyncio.create_task(work())
