"""What runs as a handler, beside a plain `def` and an `async def`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import handlers
from workerd.testing import run

if TYPE_CHECKING:
    from workerd import Queue


@pytest.mark.usefixtures("node")
async def test_coroutines_behind_wrappers_objects_and_partials_run_to_their_end(queue: Queue) -> None:
    given: dict[str, tuple[dict[str, Any], Any]] = {
        "wrapped": ({"value": 1}, 1),
        "wrapped_in_child": ({"value": 2}, 2),
        "an_object": ({"value": 3}, 6),
        "a_partial": ({}, 42),
    }
    jobs = {name: await queue.enqueue(name, payload) for name, (payload, _) in given.items()}
    results = {name: await queue.result(job, timeout=60) for name, job in jobs.items()}
    assert results == {name: result for name, (_, result) in given.items()}


async def test_a_coroutine_behind_a_wrapper_runs_in_a_test_too() -> None:
    assert await run(handlers.wrapped, {"value": 5}) == 5
