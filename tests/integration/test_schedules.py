"""Schedules: declared, set, changed, paused and run while daemons work; one job for each due time."""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.support import InProcess, until
from workerd import JobError, schedule, task
from workerd.declaration import Declaration, declare
from workerd.queue import schedules

if TYPE_CHECKING:
    import asyncpg

    from tests.support import Ctl
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

EACH_SECOND = "* * * * * *"
KEYS = "SELECT key FROM workerd.job WHERE task = $1 AND key LIKE 'schedule:%' ORDER BY id"


async def due_times(db: DB, task_name: str) -> list[datetime]:
    return [datetime.fromisoformat(row["key"].rpartition("@")[2]) for row in await db.fetch(KEYS, task_name)]


async def at_least(db: DB, task_name: str, count: int) -> list[datetime]:
    async def there() -> list[datetime]:
        found = await due_times(db, task_name)
        return found if len(found) >= count else []

    times: list[datetime] = await until(there, f"{count} jobs of {task_name}")
    return times


async def test_each_due_time_has_its_job_which_knows_it(node: InProcess, queue: Queue, db: DB) -> None:
    await queue.schedule("when_due", schedule(EACH_SECOND, catch_up="all"))
    times = await at_least(db, "when_due", 3)
    assert [b - a for a, b in itertools.pairwise(times)] == [timedelta(seconds=1)] * (len(times) - 1)
    await until(
        lambda: db.fetchval("SELECT count(*) >= 3 FROM workerd.history WHERE state = 'succeeded'"), "they have run"
    )
    for row in await db.fetch("SELECT key, result, started_at FROM workerd.history ORDER BY id LIMIT 3"):
        due = datetime.fromisoformat(json.loads(row["result"]))
        assert row["key"] == f"schedule:when_due@{due:%Y-%m-%dT%H:%M:%S.%fZ}"
        assert timedelta(0) <= row["started_at"] - due < timedelta(seconds=2)


async def test_a_change_and_a_pause_take_effect_within_a_second(node: InProcess, queue: Queue, db: DB) -> None:
    await queue.schedule("echo", schedule("0 0 1 1 *", name="often"))
    assert await due_times(db, "echo") == []
    await queue.schedule("echo", schedule(EACH_SECOND, name="often"))
    changed = await db.fetchval("SELECT clock_timestamp()")
    assert (await at_least(db, "echo", 1))[0] - changed < timedelta(seconds=2)
    await schedules.pause(db, "often")
    paused = await db.fetchval("SELECT clock_timestamp()")
    await until(
        lambda: db.fetchval("SELECT clock_timestamp() > $1::timestamptz + interval '2.2 s'", paused), "time passes"
    )
    assert all(due <= paused for due in await due_times(db, "echo"))
    await schedules.resume(db, "often")
    resumed = await db.fetchval("SELECT clock_timestamp()")
    times = await at_least(db, "echo", len(await due_times(db, "echo")) + 1)
    assert not [due for due in times if paused < due < resumed - timedelta(seconds=0.1)]


@pytest.mark.parametrize(("catch_up", "count"), [("none", 0), ("last", 1), ("all", 10)])
async def test_times_at_which_no_daemon_lived(
    settings: Settings, queue: Queue, db: DB, catch_up: str, count: int
) -> None:
    await queue.schedule("echo", schedule("0 */2 * * *", catch_up=catch_up))  # type: ignore[arg-type]  # as listed
    await db.execute(
        "UPDATE workerd.schedule SET next_at = next_at - interval '20 hours'"
    )  # as if the last daemon had died then
    async with InProcess(settings):
        moved = "SELECT next_at > clock_timestamp() FROM workerd.schedule"
        await until(lambda: db.fetchval(moved), "it has been served")
        assert len(await due_times(db, "echo")) == count


async def test_two_leaders_at_once_make_no_second_job(db: DB, dsn: str, queue: Queue) -> None:
    await queue.schedule("echo", schedule(EACH_SECOND, catch_up="all"))
    await db.execute("UPDATE workerd.schedule SET next_at = next_at - interval '1 hour'")

    async def serve() -> None:
        async with queue.connection() as own:
            for _ in range(20):
                for row in await schedules.due(own):
                    await schedules.fire(own, row)

    await asyncio.gather(*(serve() for _ in range(4)))
    times = await due_times(db, "echo")
    assert len(times) >= 3600
    assert len(set(times)) == len(times)
    assert [b - a for a, b in itertools.pairwise(times)] == [timedelta(seconds=1)] * (len(times) - 1)


async def test_what_code_declares_is_made_known_and_what_an_operator_changes_holds(db: DB) -> None:
    def declared(*given: object, name: str = "reporting") -> list[Declaration]:
        @task(name=name, schedule=[schedule(cron, name=f"s{n}") for n, cron in enumerate(map(str, given))])
        async def handler() -> None: ...

        return [declare(handler, 3)]

    async def rules() -> dict[str, str]:
        return {row["name"]: row["rule"] for row in await schedules.find(db)}

    await schedules.declare(db, declared("0 6 * * *", "0 7 * * *"))
    assert await rules() == {"s0": "0 6 * * *", "s1": "0 7 * * *"}
    await schedules.put(db, "s0", "reporting", schedule("0 9 * * *"))
    await schedules.declare(db, declared("0 6 * * *", "0 7 * * *"))
    assert (await rules())["s0"] == "0 9 * * *"
    await schedules.declare(db, declared("0 8 * * *"))
    assert await rules() == {"s0": "0 8 * * *"}
    with pytest.raises(JobError, match="the code declares the schedule s0"):
        await schedules.remove(db, "s0")


async def test_a_schedule_that_cannot_be_served_does_not_keep_others_from_their_jobs(
    node: InProcess, queue: Queue, db: DB, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.schedule("echo", schedule(EACH_SECOND, name="bad"))
    await db.execute("UPDATE workerd.schedule SET rule = 'gibberish', next_at = now() - interval '1 s'")
    await queue.schedule("echo", schedule(EACH_SECOND, name="good"))
    await at_least(db, "echo", 2)
    assert "schedule bad cannot be served, again in 60 s" in caplog.text


def test_the_commands(ctl: Ctl) -> None:
    def words(line: str) -> str:
        done = ctl(*line.split())
        assert done.returncode == 0, done.stderr
        return done.stdout

    done = ctl(
        "schedules",
        "set",
        "weekly",
        "echo",
        "--cron",
        "0 6 * * mon",
        "--tz",
        "Europe/Berlin",
        "--payload",
        '{"value": 1}',
    )
    assert done.stdout == "weekly: echo, At 06:00 on Monday, Europe/Berlin\n"
    (told,) = ctl.json("schedules", "list")
    assert (told["task"], told["payload"], told["paused"], len(told["next"])) == ("echo", {"value": 1}, False, 3)
    soon = datetime.fromisoformat(told["next"][0]).astimezone(UTC)
    assert timedelta(0) < soon - datetime.now(UTC) <= timedelta(days=7)
    assert "Mon" in words("schedules list")
    words("schedules pause weekly")
    assert "paused" in words("schedules list")
    words("schedules resume weekly")
    job = words("schedules run weekly").strip()
    assert ctl.json("jobs", "show", job)["payload"] == {"value": 1}
    words("schedules remove weekly")
    assert ctl.json("schedules", "list") == []
    missing = ctl("schedules", "run", "weekly")
    assert (missing.returncode, missing.stderr) == (
        1,
        "workerctl: there is no schedule weekly: workerctl schedules list\n",
    )
