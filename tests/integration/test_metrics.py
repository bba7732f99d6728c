"""Metrics and health over HTTP: right figures, answers while the loop stands still, and none that fails while a reload hands over."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import asyncpg
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from tests import handlers
from tests.support import DaemonProcess, InProcess, until, until_state
from workerctl.control import ask
from workerd.maintenance import census, surveyor
from workerd.queue import depth as depth_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Ctl
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def served(settings: Settings) -> Settings:
    return settings.model_copy(update={"enable_metrics": True, "metrics_port": 0})


def _get(address: str, path: str = "metrics", accept: str = "*/*") -> tuple[int, str]:
    asked = Request(address.removesuffix("metrics") + path, headers={"Accept": accept})  # noqa: S310 - ours
    try:
        with urlopen(asked, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


async def get(address: str, path: str = "metrics", accept: str = "*/*") -> tuple[int, str]:
    return await asyncio.to_thread(_get, address, path, accept)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Values by name and labels' values, in the order of the labels' names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


async def _address(settings: Settings) -> str:
    told = await asyncio.to_thread(ask, settings.socket_path, "status")
    return str(told["metrics"])


async def until_told(address: str, value: float, *key: str) -> dict[tuple[str, ...], float]:
    async def look() -> Any:
        found = samples((await get(address))[1])
        return found if found.get(key) == value else None

    told: dict[tuple[str, ...], float] = await until(look, f"{key} is {value}")
    return told


async def test_jobs_are_counted_by_task_and_outcome_and_timed(served: Settings, queue: Queue, db: DB) -> None:
    async with InProcess(served):
        address = await _address(served)
        for _ in range(3):
            await queue.enqueue("echo", {"value": 1})
        await queue.enqueue("failing", {"number": 1})
        await queue.enqueue("stumble", {"until_attempt": 2})
        begun, go_on = handlers.gate(1)
        gated = await queue.enqueue("gated", {"number": 1})
        await queue.enqueue("nap", {"seconds": 0.3})
        await begun.wait()
        told = await until_told(address, 1.0, "workerd_jobs_total", "succeeded", "default", "nap")
        assert told["workerd_workers_busy",] == 1
        go_on.set()
        await until_state(db, gated, "succeeded")
        told = await until_told(address, 1.0, "workerd_jobs_total", "succeeded", "default", "gated")
    ended = {key[1:]: value for key, value in told.items() if key[0] == "workerd_jobs_total" and value}
    assert ended == {
        ("succeeded", "default", "echo"): 3,
        ("failed", "default", "failing"): 1,
        ("retried", "default", "stumble"): 1,
        ("succeeded", "default", "stumble"): 1,
        ("succeeded", "default", "gated"): 1,
        ("succeeded", "default", "nap"): 1,
    }
    buckets = [value for key, value in told.items() if key[0] == "workerd_job_run_seconds_bucket" and key[2] == "nap"]
    assert buckets == sorted(buckets)
    assert told["workerd_job_run_seconds_bucket", "0.2264", "nap"] == 0
    assert told["workerd_job_run_seconds_bucket", "0.6762", "nap"] == 1
    assert told["workerd_job_run_seconds_count", "nap"] == 1
    assert 0.3 <= told["workerd_job_run_seconds_sum", "nap"] < 0.6
    assert told["workerd_job_wait_seconds_count", "stumble"] == 1, "the wait for a retry is not the queue's"
    assert 0 < told["workerd_job_wait_seconds_sum", "nap"] < 5
    assert told["workerd_claim_batch_jobs_sum",] == 8
    assert told["workerd_claim_batch_jobs_bucket", "500.0"] == told["workerd_claim_batch_jobs_count",] > 0
    assert told["workerd_disk_size_bytes", "state"] > told["workerd_disk_free_bytes", "log"] > 0
    assert told["workerd_workers",] == served.workers
    assert told["workerd_database_connected",] == 1
    assert told["process_resident_memory_bytes",] > 1e7


async def test_the_leader_tells_how_deep_the_queues_are(
    served: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "ROUND", 0.05)
    async with InProcess(served.model_copy(update={"queues": ("default",)})):
        address = await _address(served)
        begun, go_on = handlers.gate(1)
        await queue.enqueue("gated", {"number": 1})
        await begun.wait()
        await queue.enqueue("echo", queue="elsewhere", delay="1h")
        await queue.enqueue_many("echo", [{}] * 3, queue="elsewhere")
        await queue.enqueue("echo", queue="elsewhere", priority=5)
        told = await until_told(address, 4.0, "workerd_queue_jobs", "elsewhere", "queued")
        go_on.set()
    assert told["workerd_queue_jobs", "elsewhere", "scheduled"] == 1
    assert told["workerd_queue_jobs", "default", "running"] == 1
    assert told["workerd_queue_jobs", "default", "queued"] == 0
    assert 0 < told["workerd_queue_oldest_seconds", "elsewhere"] < 30
    assert told["workerd_queue_oldest_seconds", "default"] == 0
    assert told["workerd_leader",] == 1


async def test_one_node_tells_the_depth_and_another_when_it_has_gone(served: Settings, queue: Queue) -> None:
    await queue.enqueue("echo", queue="elsewhere")
    key = "workerd_queue_jobs", "elsewhere", "queued"
    only = {"queues": ("default",)}
    second = served.model_copy(update={**only, "name": "second", "runtime_dir": served.runtime_dir / "second"})
    async with InProcess(served.model_copy(update=only)) as one:
        address = await _address(served)
        await until_told(address, 1.0, *key)
        async with InProcess(second):
            other = await _address(second)
            told = samples((await get(other))[1])
            assert told["workerd_leader",] == 0
            assert key not in told
            await one.stop()
            await until_told(other, 1.0, *key)


async def test_the_leader_tells_what_condition_the_server_is_in(
    served: Settings, queue: Queue, db: DB, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveyor, "ROUND", 0.05)
    other = await asyncpg.connect(dsn)
    async with InProcess(served):
        address = await _address(served)
        told = await until_told(address, 1.0, "workerd_nodes", "alive")
        assert told["workerd_nodes", "dead"] == 0
        async with other.transaction(isolation="repeatable_read"):
            await other.fetch("SELECT 1")
            await queue.enqueue_many("echo", [{}] * 50)

            async def seen() -> Any:
                found = samples((await get(address))[1])
                old = found["workerd_oldest_snapshot_seconds",] > 0.3
                return found if old and found["workerd_dead_rows", "ready"] >= 50 else None

            told = await until(seen, "the snapshot and what it keeps are told")
            assert told["workerd_oldest_transaction_seconds",] >= told["workerd_oldest_snapshot_seconds",]

        async def gone() -> bool:
            return samples((await get(address))[1])["workerd_oldest_snapshot_seconds",] < 0.3

        await until(gone, "it has ended")
    await other.close()


async def test_leases_that_are_lost_and_jobs_that_are_rescued_are_counted(
    served: Settings, queue: Queue, db: DB
) -> None:
    async with InProcess(served):
        address = await _address(served)
        begun, go_on = handlers.gate(1)
        job = await queue.enqueue("gated", {"number": 1})
        await begun.wait()
        await db.execute("UPDATE workerd.node SET dead_at = clock_timestamp() WHERE dead_at IS NULL")
        await until_told(address, 1.0, "workerd_leases_lost_total")
        go_on.set()
        told = await until_told(address, 1.0, "workerd_jobs_rescued_total")
        await until_state(db, job, "succeeded")
        assert told["workerd_stuck_parts",] == 0


async def test_jobs_that_take_too_long_to_count_are_not_told(
    db: DB, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.enqueue("echo")
    counting = census.Census()
    await counting.run_once(db)
    assert [(depth.queue, depth.queued) for depth in counting.depths] == [("default", 1)]
    async with queue.connection() as other, other.transaction():
        await other.execute("LOCK TABLE workerd.scheduled IN ACCESS EXCLUSIVE MODE")
        monkeypatch.setattr(depth_limit, "LIMIT", 0.1)
        assert await counting.run_once(db) >= census.ROUND
        assert counting.depths == []
    await counting.run_once(db)
    assert counting.depths


async def test_openmetrics_is_given_to_those_who_prefer_it(served: Settings, queue: Queue) -> None:
    async with InProcess(served):
        address = await _address(served)
        await queue.enqueue("echo")
        await until_told(address, 1.0, "workerd_jobs_total", "succeeded", "default", "echo")
        _, text = await get(address, accept=OPENMETRICS)
        assert "workerd_jobs" in {family.name for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
        assert (await get(address, "elsewhere"))[0] == 404


async def test_a_loop_that_stands_still_is_said_and_metrics_are_answered_meanwhile(
    served: Settings, queue: Queue, db: DB
) -> None:
    with DaemonProcess(served) as daemon:
        await asyncio.to_thread(daemon.start)
        address = await _address(served)
        assert (await get(address, "healthz"))[0] == 200
        job = await queue.enqueue("blocking", {"seconds": 5})
        await until_state(db, job, "running")
        code, text = await get(address, "healthz")
        assert (code, json.loads(text)["live"]) == (503, False)
        assert "has not answered" in json.loads(text)["reason"]
        assert samples((await get(address))[1])["workerd_workers",] == served.workers
        assert await db.fetchval("SELECT state FROM workerd.job WHERE id = $1", job) == "running", "answered too late"
        await until_state(db, job, "succeeded")
        assert (await get(address, "healthz"))[0] == 200
        daemon.signal(15)
        assert await asyncio.to_thread(daemon.wait) == 0


async def test_without_its_database_a_daemon_is_live_and_not_ready(server: str, served: Settings, dsn: str) -> None:
    name = dsn.partition("?")[0].rpartition("/")[2]
    operator = await asyncpg.connect(server)
    async with InProcess(served):
        address = await _address(served)

        async def answers(code: int) -> bool:
            return (await get(address, "readyz"))[0] == code

        assert await answers(200)
        await operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        await until(lambda: answers(503), "it is not ready")
        assert (await get(address, "healthz"))[0] == 200
        cut = samples((await get(address))[1])
        assert (cut["workerd_database_connected",], cut["workerd_reconnects_total",]) == (0, 0)
        await operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await until(lambda: answers(200), "it is ready again")
        assert samples((await get(address))[1])["workerd_reconnects_total",] == 1
    await operator.close()


class Scraper:
    """Asks again and again, in a thread, and keeps every answer."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._ending = threading.Event()
        self.answers: list[int | str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        for path in self._paths():
            try:
                self.answers.append(_get(self._address, path)[0])
            except OSError as error:
                self.answers.append(f"{path}: {error}")

    def _paths(self) -> Iterator[str]:
        while not self._ending.is_set():
            yield from ("metrics", "healthz", "readyz")


async def test_no_question_fails_while_a_reload_hands_over(served: Settings) -> None:
    with DaemonProcess(served) as daemon:
        await asyncio.to_thread(daemon.start)
        address = await _address(served)
        with Scraper(address) as scraper:
            for _ in range(3):
                await daemon.reload()
                assert await _address(served) == address
            for earlier in daemon.earlier:
                assert await asyncio.to_thread(earlier.wait) == 0
        assert set(scraper.answers) == {200}
        assert len(scraper.answers) > 50
        daemon.signal(15)
        assert await asyncio.to_thread(daemon.wait) == 0
        with pytest.raises(OSError, match="refused"):
            _get(address)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_a_port_that_is_taken_is_one_clear_line(ctl: Ctl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = ctl("start", ENABLE_METRICS="true", METRICS_PORT=str(port))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"port {port} of 127.0.0.1: Address already in use (set METRICS_PORT" in done.stderr
    assert ctl("status").returncode == 3


def test_a_reload_moves_metrics_to_another_port_and_ends_them(ctl: Ctl) -> None:
    file = ctl.directory / ".env"
    first, second = _free_port(), _free_port()
    file.write_text(f"ENABLE_METRICS=true\nMETRICS_PORT={first}\n")
    assert ctl("start").returncode == 0
    assert _get(f"http://127.0.0.1:{first}/metrics")[0] == 200
    file.write_text(f"ENABLE_METRICS=true\nMETRICS_PORT={second}\n")
    assert ctl("reload").returncode == 0
    assert ctl.json("status")["metrics"] == f"http://127.0.0.1:{second}/metrics"
    assert _get(f"http://127.0.0.1:{second}/metrics")[0] == 200
    file.write_text("")
    assert ctl("reload").returncode == 0
    assert ctl.json("status")["metrics"] is None
    for port in (first, second):
        with pytest.raises(OSError, match="refused"):
            _get(f"http://127.0.0.1:{port}/metrics")
