"""Nodes are listed, scaled, drained and forgotten from anywhere, by name or id."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING, Any

from tests.support import InProcess, until, until_state
from workerd.queue import orders
from workerd.queue.database import connect
from workerd.queue.node import Registration, lock, register
from workerd.queue.rescue import MANAGER_SESSION, end_sessions, look

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg
    import pytest

    from tests.support import Ctl, DaemonProcess
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

CONTRACT = {
    "id",
    "name",
    "state",
    "workers",
    "busy",
    "transport",
    "heartbeat_age_s",
    "version",
    "jobs_done",
    "jobs_failed",
}
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def _ctl(ctl: Ctl, *words: str) -> tuple[int, str]:
    """The exit code, and what it said on either stream."""
    done = await asyncio.to_thread(ctl, *words)
    return done.returncode, (done.stdout + done.stderr).strip()


async def _listed(ctl: Ctl, *words: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in await asyncio.to_thread(ctl.json, "nodes", "list", *words)}


def _second(settings: Settings, **changes: Any) -> Settings:
    places = {"runtime_dir": settings.runtime_dir / "2", "log_dir": settings.log_dir / "2"}
    return settings.model_copy(update={"name": "second", **places, **changes})


async def test_a_node_is_scaled_by_its_name_and_by_its_id(node: InProcess, ctl: Ctl) -> None:
    name = node.settings.node
    assert await _ctl(ctl, "nodes", "scale", name, "7") == (0, f"{name}: 7 workers, before 4")
    before = await _listed(ctl)
    assert before[name].keys() >= CONTRACT
    assert (before[name]["state"], before[name]["transport"]) == ("alive", "postgres")
    assert await _ctl(ctl, "nodes", "scale", before[name]["id"], "2") == (0, f"{name}: 2 workers, before 7")
    assert (await node.ask("status"))["data"]["workers"] == 2


async def test_an_order_is_taken_at_once_and_not_with_the_next_heartbeat(settings: Settings, ctl: Ctl) -> None:
    async with InProcess(settings.model_copy(update={"heartbeat_interval": 300.0, "poll_interval": 300.0})) as node:
        assert (await _ctl(ctl, "nodes", "scale", settings.node, "3", "--timeout", "20s"))[0] == 0
        assert (await node.ask("status"))["data"]["workers"] == 3


async def test_a_drained_node_finishes_what_runs_gives_back_the_rest_and_ends_with_0(
    daemon: DaemonProcess, ctl: Ctl, queue: Queue, db: DB
) -> None:
    daemon.start()
    running = await queue.enqueue("nap", {"seconds": 1.0})
    await until_state(db, running, "running")
    code, said = await _ctl(ctl, "nodes", "drain", daemon.settings.node)
    assert (code, said) == (0, f"{daemon.settings.node} drains: 1 jobs run")
    code, said = await _ctl(ctl, "nodes", "scale", daemon.settings.node, "9")
    assert code == 1
    assert "the daemon is draining: only a running one can be scaled" in said or "is dead" in said or "died" in said
    assert await asyncio.to_thread(daemon.wait) == 0
    assert (await until_state(db, running, "succeeded"))["attempt"] == 1


async def test_a_draining_node_refuses_to_be_scaled(settings: Settings, ctl: Ctl, queue: Queue, db: DB) -> None:
    async with InProcess(settings.model_copy(update={"drain_timeout": 60.0})) as node:
        job = await queue.enqueue("nap", {"seconds": 3600})
        await until_state(db, job, "running")
        await node.ask("drain")
        await until(lambda: db.fetchval("SELECT draining FROM workerd.node"), "it says that it drains")
        assert (await _listed(ctl))[settings.node]["state"] == "draining"
        assert await _ctl(ctl, "nodes", "scale", settings.node, "9") == (
            1,
            f"workerctl: node {settings.node} refuses: the daemon is draining: only a running one can be scaled",
        )
        await queue.cancel(job)


async def test_an_order_outlives_the_connections_of_its_node_and_is_carried_out_once(
    node: InProcess, db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost between the deed and the report of it."""
    scaled: list[int] = []
    done = orders.done

    async def cut_first(connection: Any, *outcome: Any) -> None:
        scaled.append(outcome[1])
        if len(scaled) == 1:
            connection.terminate()
        await done(connection, *outcome)

    monkeypatch.setattr("workerd.queue.orders.done", cut_first)
    node_id = await db.fetchval("SELECT id FROM workerd.node")
    order = await orders.give(db, node_id, "scale", {"workers": 6})
    assert order is not None
    await db.execute(CUT)

    async def told() -> Any:
        outcome = await orders.look(db, order)
        return outcome if outcome is not None and outcome.done else None

    outcome = await until(told, "the order is done")
    assert scaled == [order, order]
    assert outcome.result == {"workers": 6, "before": 4}, "a second time the answer would be: before 6"


async def test_bad_orders_get_one_line(node: InProcess, settings: Settings, ctl: Ctl) -> None:
    unknown = (1, "workerctl: there is no node nowhere (see workerctl nodes list)")
    assert await _ctl(ctl, "nodes", "scale", "nowhere", "3") == unknown
    assert await _ctl(ctl, "nodes", "drain", "nowhere") == unknown
    code, said = await _ctl(ctl, "nodes", "scale", settings.node, "1000000")
    assert (code, said.count("\n")) == (1, 0)
    assert said.startswith(f"workerctl: node {settings.node} refuses: the number of workers is 1000000, allowed is")
    for words in (
        ("scale", settings.node, "none"),
        ("scale", settings.node, "0"),
        ("drain", settings.node, "--timeout", "soon"),
    ):
        code, said = await _ctl(ctl, "nodes", *words)
        assert (code, said.count("\n")) == (2, 0)
    assert (await node.ask("status"))["data"]["state"] == "running"


async def test_two_nodes_of_one_name_are_told_apart_by_their_ids(node: InProcess, settings: Settings, ctl: Ctl) -> None:
    async with InProcess(_second(settings, node_name=settings.node)):
        ids = {each["id"] for each in await asyncio.to_thread(ctl.json, "nodes", "list")}
        code, said = await _ctl(ctl, "nodes", "drain", settings.node)
        assert (code, said.count("\n")) == (1, 0)
        assert said.startswith(f"workerctl: 2 living nodes are called {settings.node}: give the id of one of them: ")
        assert set(said.rpartition(": ")[2].split(", ")) == ids


async def test_an_order_to_a_node_that_dies_is_void(
    daemon: DaemonProcess, settings: Settings, ctl: Ctl, db: DB
) -> None:
    await asyncio.to_thread(daemon.start)
    async with InProcess(_second(settings)):
        await asyncio.to_thread(daemon.kill)
        assert await _ctl(ctl, "nodes", "scale", settings.node, "9") == (
            1,
            f"workerctl: node {settings.node} died before it took the order",
        )
        assert await _ctl(ctl, "nodes", "scale", settings.node, "9") == (
            1,
            f"workerctl: node {settings.node} is dead: nothing can be ordered of it",
        )


async def test_an_order_that_is_not_taken_in_time_stands(daemon: DaemonProcess, ctl: Ctl, db: DB) -> None:
    await asyncio.to_thread(daemon.start)
    daemon.signal(signal.SIGSTOP)
    name = daemon.settings.node
    assert await _ctl(ctl, "nodes", "scale", name, "9", "--timeout", "0") == (
        1,
        f"workerctl: node {name} has not taken the order within 0 s: it will when it reaches the database again",
    )
    daemon.signal(signal.SIGCONT)
    await until(lambda: db.fetchval("SELECT workers = 9 FROM workerd.node"), "it has taken the order")


async def test_a_killed_node_is_listed_as_dead_until_it_is_forgotten_and_its_jobs_keep_its_name(
    daemon: DaemonProcess, settings: Settings, ctl: Ctl, queue: Queue, db: DB
) -> None:
    name = settings.node
    await asyncio.to_thread(daemon.start)
    job = await queue.enqueue("echo", {"value": 1})
    await until_state(db, job, "succeeded")
    code, said = await _ctl(ctl, "nodes", "forget", name)
    assert (code, said.count("\n")) == (1, 0)
    assert said.startswith(f"workerctl: node {name} lives: only a dead one can be forgotten")
    async with InProcess(_second(settings)):
        await asyncio.to_thread(daemon.kill)
        await until(
            lambda: db.fetchval("SELECT dead_at FROM workerd.node WHERE name = $1", name), "it is declared dead"
        )
        assert (await _listed(ctl))[name]["state"] == "dead"
        assert await _ctl(ctl, "nodes", "forget", name) == (0, "1 dead node forgotten")
        assert set(await _listed(ctl)) == set(await _listed(ctl, "--all")) == {_second(settings).node}
        assert (await asyncio.to_thread(ctl.json, "jobs", "show", str(job)))["node"] == name
        assert await _ctl(ctl, "nodes", "forget", name) == (
            1,
            f"workerctl: there is no node {name} (see workerctl nodes list --all)",
        )


async def test_daemons_of_one_host_have_places_of_their_own(ctl: Ctl, tmp_path: Path, db: DB) -> None:
    host = socket.gethostname()
    try:
        for name, workers in (("a", "2"), ("b", "3")):
            code, said = await _ctl(ctl, "start", workers, "--name", name)
            assert code == 0, said
        assert {path.name for path in (tmp_path / "run").iterdir()} >= {"a.pid", "a.sock", "b.pid", "b.sock"}
        assert {path.name for path in (tmp_path / "log").iterdir()} >= {"a.log", "b.log"}
        assert await _ctl(ctl, "nodes", "scale", f"{host}-b", "5") == (0, f"{host}-b: 5 workers, before 3")
        assert (await _ctl(ctl, "scale", "4", "--name", "a"))[0] == 0
        told = {name: await asyncio.to_thread(ctl.json, "status", "--name", name) for name in ("a", "b")}
        assert {name: (each["name"], each["node"], each["workers"]) for name, each in told.items()} == {
            "a": ("a", f"{host}-a", 4),
            "b": ("b", f"{host}-b", 5),
        }
        assert "scaled from 2 to 4 workers" in (await _ctl(ctl, "logs", "--name", "a"))[1]
        assert (await _ctl(ctl, "stop", "--name", "a"))[0] == 0
        assert (await _ctl(ctl, "status", "--name", "a"))[0] == 3
        assert set(await _listed(ctl)) == {f"{host}-b"}
    finally:
        for name in ("a", "b"):
            await _ctl(ctl, "stop", "--now", "--name", name)


async def test_the_sessions_that_a_dead_node_left_are_ended_and_none_of_the_one_that_took_its_place(
    dsn: str, db: DB
) -> None:
    """Both have the same name, and come from the same address."""
    about = Registration("web-1", 1, "1", 60.0, [], [])
    opened = {}
    for life in (1, 2):
        for part in (" lease", "", " pool"):
            opened[life, part] = await connect(dsn, f"worker web-1{part}")
        assert await lock(opened[life, " lease"], life)
        await register(db, life, about, workers=1, locked=True)

    async def open_ones() -> list[tuple[int, str]]:
        living = {row[0] for row in await db.fetch("SELECT pid FROM pg_stat_activity")}
        return [key for key, connection in opened.items() if connection.get_server_pid() in living]

    async def declare_dead(life: int) -> int:
        await db.execute("UPDATE workerd.node SET dead_at = clock_timestamp() WHERE id = $1", life)
        return await end_sessions(db, life)

    async def left(count: int) -> bool:
        return len(await open_ones()) == count

    assert await declare_dead(1) == 1
    await until(lambda: left(5), "the session that held the lock is ended")
    assert (1, " lease") not in await open_ones()
    assert await declare_dead(2) == 5, "nobody lives who has this name"
    await until(lambda: left(0), "all are ended")
    for connection in opened.values():
        connection.terminate()


async def test_silence_of_a_node_behind_a_manager_proves_nothing_while_no_manager_is_there(dsn: str, db: DB) -> None:
    about = Registration("edge", 1, "1", 5.0, [], [])
    for node, transport, seconds in ((1, "postgres", 20), (2, "http", 20), (3, "http", 80), (4, "http", 10)):
        await register(db, node, about, workers=1, locked=False)
        silence = (
            "UPDATE workerd.node SET transport = $2, beat = clock_timestamp() - make_interval(secs => $3) WHERE id = $1"
        )
        await db.execute(silence, node, transport, seconds)

    async def silent(node: int) -> set[int]:
        found = {each.id for each in await look(db) if each.silent}
        return found if node in found else set()

    assert await until(lambda: silent(1), "this connection is old enough to judge") == {1, 3}
    manager = await connect(dsn, MANAGER_SESSION.format("web-1"))
    assert await silent(2) == set(), "the manager has just come"
    found = await until(lambda: silent(2), "it would have heard from its nodes")
    assert found >= {1, 2, 3}
    manager.terminate()
