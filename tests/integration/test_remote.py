"""Nodes that work through the manager: the same daemon, without a connection to the database."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests import handlers, step_handlers
from tests.faults.fleet import run_to_its_end
from tests.manager_process import ManagerProcess, free_port, through
from tests.support import InProcess, state_of, until, until_state
from workerd.queue import fleet, inspect, orders, tokens

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg
    import httpx

    from tests.support import Ctl
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


@pytest.fixture
async def edge(remote: Settings) -> Any:
    """A node without a database, in this process; it is ready."""
    tasks = ("tests.handlers", "tests.step_handlers")
    async with InProcess(remote.model_copy(update={"tasks": tasks})) as running:
        yield running


# what it does as any node does


async def test_jobs_run_there_and_the_node_stands_beside_the_others(
    edge: InProcess, node: InProcess, queue: Queue, db: DB
) -> None:
    await db.execute("UPDATE workerd.node SET draining = false")
    jobs = await queue.enqueue_many("measured", [{}] * 20)
    assert {await queue.result(job, timeout=60) for job in jobs} <= {await queue.result(job) for job in jobs}
    listed = {each["transport"]: each for each in await inspect.nodes(db)}
    assert listed.keys() == {"http", "postgres"}
    assert (listed["http"]["name"], listed["http"]["state"]) == (edge.settings.node, "alive")
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE $1"
    assert await db.fetchval(sessions, f"worker {edge.settings.node}%") == 0


async def test_its_log_has_no_line_for_each_request(
    remote: Settings, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with InProcess(remote):
        await queue.result(await queue.enqueue("echo", {"value": 0}), timeout=60)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("httpx")] == []


async def test_a_job_starts_there_as_soon_as_it_is_enqueued(remote: Settings, queue: Queue) -> None:
    """By a notice: the node's own looks are minutes apart."""
    loop = asyncio.get_running_loop()
    async with InProcess(remote.model_copy(update={"poll_interval": 300.0})) as edge:

        async def at_rest() -> bool:
            return not edge.daemon._claimer._appetite

        took = []
        for number in range(10):
            await until(at_rest, "the node sleeps")
            began = loop.time()
            await queue.result(await queue.enqueue("echo", {"value": number}), timeout=60)
            took.append(loop.time() - began)
    assert sorted(took)[5] < 5


async def test_what_jobs_ask_for_while_they_run_reaches_the_database(edge: InProcess, queue: Queue, db: DB) -> None:
    step_handlers.calls.clear()
    job = await queue.enqueue("stepping", {"fails": 1})
    assert await queue.result(job, timeout=60) == {"first": ["a", 1], "second": {"b": 2}, "attempt": 2}
    assert step_handlers.calls.count("first") == 1
    parents = await queue.enqueue_many("echo", [{"value": 1}, {"value": 2}])
    child = await queue.enqueue("gather", after=parents)
    assert sorted(await queue.result(child, timeout=60)) == [1, 2]
    made = await queue.result(await queue.enqueue("enqueuing", {"values": [4, 5]}), timeout=60)
    assert [await queue.result(each, timeout=60) for each in made] == [4, 5]


async def test_progress_and_log_lines_are_kept(edge: InProcess, queue: Queue, db: DB, manager: ManagerProcess) -> None:
    job = await queue.enqueue("reporting_gated", {"number": 71})
    begun, go_on = handlers.gate(71)
    await asyncio.wait_for(begun.wait(), 60)
    shown = "SELECT progress, message FROM workerd.job WHERE id = $1"
    await until(lambda: _equals(db, shown, job, (0.5, "half")), "the progress is written")
    go_on.set()
    await until_state(db, job, "succeeded")
    lines = await db.fetch("SELECT level, message FROM workerd.job_log WHERE id = $1 ORDER BY line", job)
    assert [tuple(line) for line in lines] == [("info", "half of it"), ("warning", "nearly")]


async def _equals(db: DB, query: str, job: int, wanted: tuple[object, ...]) -> bool:
    row = await db.fetchrow(query, job)
    return row is not None and tuple(row) == wanted


async def test_an_answer_from_outside_wakes_its_job(edge: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("waiting", {"event": "paid"})
    await until_state(db, job, "scheduled")
    assert await queue.signal(job, "paid", {"sum": 3})
    assert await queue.result(job, timeout=60) == {"sum": 3}


async def test_a_running_job_is_cancelled_and_the_node_is_scaled(edge: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("nap", {"seconds": 60})
    await until_state(db, job, "running")
    await queue.cancel(job)
    await until_state(db, job, "cancelled")
    known = await fleet.living(db, edge.settings.node)
    order = await orders.give(db, known.id, "scale", {"workers": 7})
    assert order is not None
    done = await until(lambda: _done(db, order), "the order is carried out")
    assert (done.result["workers"], done.error) == (7, None)


async def _done(db: DB, order: int) -> orders.Outcome | None:
    outcome = await orders.look(db, order)
    return outcome if outcome is not None and outcome.done else None


async def test_results_of_a_megabyte_that_end_together_are_delivered(edge: InProcess, queue: Queue) -> None:
    values = [str(n) * 990_000 for n in range(8)]
    jobs = await queue.enqueue_many("echo", [{"value": value} for value in values] * 3)
    assert [len(await queue.result(job, timeout=30)) for job in jobs] == [990_000] * 24


async def test_its_key_is_free_when_a_job_starts(edge: InProcess, queue: Queue, db: DB) -> None:
    options: dict[str, Any] = {"key": "k", "key_until": "started"}
    first = await queue.enqueue("nap", {"seconds": 0.3}, **options)
    await until_state(db, first, "running")
    key = "SELECT NOT EXISTS (SELECT FROM workerd.key WHERE key = 'k')"
    await until(lambda: db.fetchval(key), "the key is free")
    assert await queue.enqueue("echo", **options) != first


async def test_a_job_pinned_to_it_runs_there(edge: InProcess, node: InProcess, queue: Queue, db: DB) -> None:
    jobs = [await queue.enqueue("echo", {"value": n}, pin=edge.settings.node) for n in range(5)]
    for job in jobs:
        assert (await until_state(db, job, "succeeded"))["node"] == edge.settings.node


async def test_without_a_node_that_has_the_database_the_manager_leads(edge: InProcess, queue: Queue) -> None:
    job = await queue.enqueue("stumble", {"until_attempt": 3}, delay="0.2s")
    assert await queue.result(job, timeout=60) == 3


async def test_a_drain_gives_back_what_waits_and_the_node_leaves(remote: Settings, queue: Queue, db: DB) -> None:
    async with InProcess(remote) as edge:
        job = await queue.enqueue("nap", {"seconds": 60})
        await until_state(db, job, "running")
        await edge.stop(timeout=0.1)
    assert await state_of(db, job) == "queued"
    assert (await inspect.nodes(db, every=True))[0]["state"] == "dead"
    assert await db.fetchval("SELECT stopped FROM workerd.node WHERE name = $1", remote.node)
    told = await db.fetch("SELECT who, action FROM workerd.audit ORDER BY id")
    assert [tuple(row) for row in told] == [("edge", "register"), ("edge", "leave")]


# what it cannot do


async def test_what_needs_the_database_is_left_to_nodes_that_have_one(
    edge: InProcess, settings: Settings, queue: Queue, db: DB
) -> None:
    job = await queue.enqueue("needs_the_database", {})
    await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=60)
    assert await state_of(db, job) == "queued"
    async with InProcess(settings):
        assert await queue.result(job, timeout=60) == 1


@pytest.mark.parametrize("task", ["transactional", "holding_a_connection"])
async def test_a_connection_cannot_be_had_there_and_one_line_says_what_to_do(
    edge: InProcess, queue: Queue, db: DB, task: str
) -> None:
    payload = {"n": 1} if task == "transactional" else {"seconds": 0}
    job = await queue.enqueue(task, payload, max_retries=0)
    row = await until_state(db, job, "failed")
    first = row["error"].splitlines()[0]
    assert "has no connection to the database" in first
    assert "needs_database=True" in first


async def test_a_start_without_or_with_a_wrong_token_ends_with_one_line(remote: Settings) -> None:
    done = await asyncio.to_thread(run_to_its_end, remote.model_copy(update={"api_token": None}))
    assert done.returncode == 2
    assert "API_TOKEN is missing" in done.stderr.splitlines()[-1]
    done = await asyncio.to_thread(run_to_its_end, remote.model_copy(update={"api_token": "wkd_wrong"}))
    assert done.returncode == 1
    assert "the token is missing or not valid" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


async def test_a_manager_that_is_not_there_ends_the_start_with_one_line(remote: Settings) -> None:
    nowhere = remote.model_copy(update={"manager_url": f"http://127.0.0.1:{free_port()}"})
    done = await asyncio.to_thread(run_to_its_end, nowhere)
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_commands_that_need_the_database_say_so_on_a_host_without_one(ctl: Ctl) -> None:
    done = ctl("jobs", "list", DATABASE_URL="", MANAGER_URL="http://127.0.0.1:1", API_TOKEN="wkd_x")
    assert done.returncode == 2
    assert "works through the manager at http://127.0.0.1:1" in done.stderr


# trouble


async def test_a_node_that_was_declared_dead_registers_anew(edge: InProcess, queue: Queue, db: DB) -> None:
    before = (await fleet.living(db, edge.settings.node)).id
    await db.execute("UPDATE workerd.node SET dead_at = clock_timestamp() WHERE id = $1", before)

    async def reborn() -> bool:
        return bool(
            await db.fetchval("SELECT count(*) = 1 FROM workerd.node WHERE dead_at IS NULL AND id <> $1", before)
        )

    await until(reborn, "the node is registered anew")
    assert await queue.result(await queue.enqueue("echo", {"value": 9}), timeout=60) == 9


async def test_another_manager_is_asked_when_the_first_one_is_gone(
    manager: ManagerProcess, settings: Settings, queue: Queue, db: DB, dsn: str, tmp_path: Path
) -> None:
    home = tmp_path / "second"
    home.mkdir()
    with ManagerProcess(dsn, home) as second:
        await second.start()
        both = (await through(manager, settings, db)).model_copy(update={"manager_url": f"{manager.url},{second.url}"})
        async with InProcess(both):
            assert await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=60) == 1
            manager.kill()
            assert await queue.result(await queue.enqueue("echo", {"value": 2}), timeout=60) == 2


async def test_a_manager_that_is_told_to_stop_does_not_wait_for_its_nodes(
    edge: InProcess, manager: ManagerProcess
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await manager.stop()
    assert loop.time() - began < 5
    await manager.start()  # so that the node can leave


async def test_a_manager_runs_jobs_itself_while_no_node_lives(
    settings: Settings, queue: Queue, db: DB, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "manager"
    home.mkdir()
    monkeypatch.setenv("TASKS", "tests.handlers")
    with ManagerProcess(dsn, home, "--run-locally", "--patience", "1") as manager:
        await manager.start()
        first = await queue.enqueue("echo", {"value": 1})
        assert (await until_state(db, first, "succeeded"))["node"] == "manager-stand-in"
        async with InProcess(settings):
            gone = "SELECT stopped FROM workerd.node WHERE name = 'manager-stand-in'"
            await until(lambda: db.fetchval(gone), "the stand-in has drained")
            second = await queue.enqueue("echo", {"value": 2})
            assert (await until_state(db, second, "succeeded"))["node"] == settings.node
        third = await queue.enqueue("echo", {"value": 3})
        assert (await until_state(db, third, "succeeded"))["node"] == "manager-stand-in"
        await manager.stop()
    assert await db.fetchval("SELECT count(*) FROM workerd.node WHERE NOT stopped") == 0


# the same with nothing but HTTP


async def test_a_node_can_be_written_in_any_language(manager: ManagerProcess, queue: Queue, db: DB) -> None:
    token, other = [await tokens.create(db, name, ["work"]) for name in ("one", "two")]
    async with manager.client(token) as client, manager.client(other) as stranger:
        entered = await client.post("/api/v1/nodes", json={"name": "elsewhere", "tasks": [{"name": "echo"}]})
        assert entered.status_code == 201
        node = f"/api/v1/nodes/{entered.json()['id']}"
        asking = asyncio.create_task(client.post(f"{node}/claim", json={"batch": 2, "wait": 20}))
        job = await queue.enqueue("echo", {"value": "x"})
        claimed = (await asking).json()
        [mine] = claimed["jobs"]
        assert (mine["id"], json.loads(mine["payload"]), mine["attempt"]) == (job, {"value": "x"}, 1)
        held = {"n": claimed["n"], "pos": mine["pos"], "id": job}
        half = {"reports": [{**held, "fraction": 0.5, "message": "half"}]}
        assert (await client.post(f"{node}/progress", json=half)).status_code == 204
        assert await db.fetchval("SELECT message FROM workerd.job WHERE id = $1", job) == "half"
        assert (await client.post(f"{node}/heartbeat", json={"workers": 1, "busy": 1})).status_code == 204
        end = {"ends": [{**held, "outcome": "succeeded", "result": '"done"'}]}
        assert (await stranger.post(f"{node}/finish", json=end)).status_code == 410
        assert (await client.post(f"{node}/finish", json=end)).json() == {"held": [True]}
        assert (await client.post(f"{node}/finish", json=end)).json() == {"held": [False]}
        assert await queue.result(job) == "done"
        assert (await client.delete(node)).status_code == 204
        assert (await client.post(f"{node}/heartbeat", json={})).status_code == 410
        assert (await client.post(f"{node}/claim", json={"batch": 1})).status_code in (200, 410)


async def test_a_claim_writes_ends_of_any_kind(manager: ManagerProcess, queue: Queue, db: DB) -> None:
    token = await tokens.create(db, "one", ["work"])
    async with manager.client(token) as client:
        given = {"name": "elsewhere", "tasks": [{"name": "echo"}], "id": 77}
        assert (await client.post("/api/v1/nodes", json=given)).json() == {"id": "77"}
        assert (await client.post("/api/v1/nodes", json=given)).json() == {"id": "77"}, "the answer was lost, say"
        jobs = await queue.enqueue_many("echo", [{"value": n} for n in range(3)])
        claimed = (await client.post("/api/v1/nodes/77/claim", json={"batch": 3})).json()
        held = [{"n": claimed["n"], "pos": job["pos"], "id": job["id"]} for job in claimed["jobs"]]
        outcomes: list[dict[str, Any]] = [
            {"outcome": "succeeded", "result": "1"},
            {"outcome": "failed", "error": "ValueError: no"},
            {"outcome": "retry", "error": "ValueError: not yet", "delay": 3600},
        ]
        ended = [{**job, **outcome} for job, outcome in zip(held, outcomes, strict=True)]
        told = (await client.post("/api/v1/nodes/77/claim", json={"ends": ended})).json()
        assert told["held"] == [True, True, True]
        assert [await state_of(db, job) for job in jobs] == ["succeeded", "failed", "scheduled"]
        assert (await client.delete("/api/v1/nodes/77")).status_code == 204
        again = await client.post("/api/v1/nodes", json=given)
        assert (again.status_code, "choose another id" in again.json()["detail"]) == (409, True)


async def test_a_claim_that_waits_is_answered_when_there_is_nothing(manager: ManagerProcess, db: DB) -> None:
    token = await tokens.create(db, "one", ["work"])
    async with manager.client(token) as client:
        entered = await client.post("/api/v1/nodes", json={"name": "elsewhere", "tasks": [{"name": "echo"}]})
        node = f"/api/v1/nodes/{entered.json()['id']}"
        told = (await client.post(f"{node}/claim", json={"wait": 0.2})).json()
        assert (told["lane"], told["jobs"]) == (None, [])


async def test_nobody_may_claim_for_a_node_of_the_database(node: InProcess, manager: ManagerProcess, db: DB) -> None:
    token = await tokens.create(db, "one", ["work"])
    known = await fleet.living(db, node.settings.node)
    async with manager.client(token) as client:
        answer: httpx.Response = await client.post(f"/api/v1/nodes/{known.id}/claim", json={})
    assert answer.status_code == 410
