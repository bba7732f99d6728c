"""`workerd.testing` on a queue."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.examples import examples
from tests.support import state_of
from workerd import testing

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from workerd import Queue


async def test_the_example_of_the_page_runs(queue: Queue) -> None:
    names: dict[str, Any] = {}
    exec(compile(examples("testing-your-tasks.md")[1], "page", "exec", dont_inherit=True), names)  # noqa: S102 - our page
    await names["test_a_reminder_comes_after_a_day"](queue)


async def test_another_number_of_jobs_fails_and_shows_those_there_are(queue: Queue) -> None:
    await queue.enqueue_many("remind", [{"order": 7}, {"order": 8}])
    await testing.assert_enqueued(queue, "remind", count=2)
    await testing.assert_enqueued(queue, "remind", where={"order": 9}, count=0)
    message = '0 jobs of remind with {"order":9}, expected 1; its jobs: {"order": 7}, {"order": 8}'
    with pytest.raises(AssertionError, match=re.escape(message)):
        await testing.assert_enqueued(queue, "remind", where={"order": 9})


async def test_time_that_passes_queues_what_is_due_alone(queue: Queue, db: asyncpg.Connection[asyncpg.Record]) -> None:
    soon, late = [await queue.enqueue("remind", delay=delay) for delay in ("1h", "3h")]
    assert await testing.advance(queue, "2h") == 1
    assert (await state_of(db, soon), await state_of(db, late)) == ("queued", "scheduled")


@pytest.mark.parametrize("embedded", [False, True])
def test_a_project_of_its_own_has_a_database_for_each_test(server: str, tmp_path: Path, embedded: bool) -> None:
    """The page's conftest.py and test, twice, as a user's project."""
    _, test, conftest = examples("testing-your-tasks.md")
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    for name in ("test_one.py", "test_two.py"):
        (tmp_path / name).write_text(test)
    environment = dict(os.environ) if embedded else {**os.environ, "WORKERD_TEST_URL": server}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
