"""Threads of `def` handlers: used again, and never waited for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from typing import Any

import pytest

from workerd.daemon.threads import in_thread


async def test_one_thread_does_what_is_asked_for_one_after_another() -> None:
    assert len({await in_thread("work", threading.get_ident) for _ in range(20)}) == 1


async def test_a_thread_that_does_not_return_keeps_nothing_else_waiting() -> None:
    go_on, stuck = threading.Event(), []
    for _ in range(5):
        stuck.append(asyncio.create_task(in_thread("stuck", go_on.wait)))
        await asyncio.sleep(0)
        assert await in_thread("work", lambda: 7) == 7
    for task in stuck:
        task.cancel()
    assert await in_thread("work", lambda: 8) == 8
    go_on.set()


async def test_what_one_sets_in_its_context_is_not_seen_by_the_next() -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
    tenant.set("ours")
    first = await in_thread("work", lambda: (tenant.get(), tenant.set("acme"))[0])
    assert [first, await in_thread("work", tenant.get)] == ["ours", "ours"]


async def test_an_idle_thread_holds_on_to_nothing_of_what_it_did() -> None:
    class Large:
        pass

    made = Large()
    gone = weakref.ref(made)

    def work(large: Large) -> Any:
        return [large]

    assert await in_thread("work", lambda large=made: work(large))  # type: ignore[misc]
    del made
    await in_thread("work", lambda: None)  # it has come to its end
    assert gone() is None


@pytest.mark.parametrize("raised", [ValueError("a"), SystemExit(3), KeyboardInterrupt()])
async def test_a_thread_survives_what_is_raised_in_it(raised: BaseException) -> None:
    def fail() -> None:
        raise raised

    before = await in_thread("work", threading.get_ident)
    done = asyncio.ensure_future(asyncio.wait([asyncio.create_task(_caught(fail))]))
    await done
    assert await in_thread("work", threading.get_ident) == before


async def _caught(fail: Any) -> None:
    with pytest.raises(BaseException):  # noqa: B017, PT011
        await in_thread("work", fail)
