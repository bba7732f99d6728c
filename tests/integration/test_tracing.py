"""Traces: from the enqueue to the run and to the jobs that the run enqueues, as a collector sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.collector import CONSUMER, ERROR, PRODUCER, Collector
from tests.examples import examples
from tests.manager_process import free_port
from tests.support import LIMIT, ROOT, until_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

    from tests.manager_process import ManagerProcess
    from tests.support import Ctl, DaemonProcess
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
[APPLICATION] = examples("tracing.md")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture
def traced(ctl: Ctl, collector: Collector) -> Ctl:
    """`workerctl` where the settings file says that there are to be traces."""
    (ctl.directory / ".env").write_text(f"OTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\nOTEL_BSP_SCHEDULE_DELAY=50\n")
    ctl.environment["TASKS"] = "tests.traced_handlers"
    return ctl


async def test_one_trace_leads_from_a_request_to_the_job_and_its_child(
    traced: Ctl, collector: Collector, db: DB
) -> None:
    start(traced)
    job = application(traced, collector)
    await until_state(db, job, "succeeded")
    enqueue, run = await collector.span("enqueue order"), await collector.span("run order")
    request, look_up = await collector.span("request"), await collector.span("look up")
    child_enqueue, child_run = await collector.span("enqueue ship"), await collector.span("run ship")
    line = [request, enqueue, run, look_up, child_enqueue, child_run]
    assert [span.parent for span in line] == ["", *(span.id for span in line[:-1])]
    assert {span.trace for span in line} == {request.trace}
    assert (enqueue.kind, run.kind) == (PRODUCER, CONSUMER)
    assert run.links == [enqueue.id]
    assert enqueue.attributes == {
        "messaging.system": "workerd",
        "messaging.operation.type": "send",
        "messaging.operation.name": "enqueue",
        "messaging.destination.name": "orders",
        "messaging.message.id": str(job),
        "workerd.task": "order",
    }
    assert run.attributes == {
        "messaging.system": "workerd",
        "messaging.operation.type": "process",
        "messaging.operation.name": "run",
        "messaging.destination.name": "orders",
        "messaging.message.id": str(job),
        "workerd.task": "order",
        "workerd.attempt": 1,
        "workerd.outcome": "succeeded",
    }
    assert run.resource["service.name"] == "workerd"


async def test_a_failure_is_recorded_except_what_a_sensitive_one_says(
    traced: Ctl, collector: Collector, queue: Queue
) -> None:
    start(traced)
    await queue.enqueue("ship", {"how": "raise"})
    await queue.enqueue("secretly", {"card": "4111"})
    failed, secret = await collector.span("run ship"), await collector.span("run secretly")
    assert (failed.status, failed.message, failed.parent) == (ERROR, "order 7 is wrong", "")
    assert failed.attributes["workerd.outcome"] == "failed"
    [event] = failed.events
    assert (event["name"], event["exception.type"], event["exception.message"]) == (
        "exception",
        "ValueError",
        "order 7 is wrong",
    )
    assert 'raise ValueError("order 7 is wrong")' in event["exception.stacktrace"]
    assert secret.events == [{"name": "exception", "exception.type": "ValueError"}]
    assert "4111" not in str(secret)


async def test_handlers_in_threads_and_processes_are_part_of_the_trace(
    traced: Ctl, collector: Collector, db: DB
) -> None:
    start(traced)
    for task, within in (("in_thread", "look up"), ("in_child", "compute")):
        job = await db.fetchval("SELECT workerd.enqueue($1, traceparent => $2)", task, TRACEPARENT)
        await until_state(db, job, "succeeded")
        run, inner = await collector.span(f"run {task}"), await collector.span(within)
        assert (run.trace, run.parent, inner.parent) == (TRACE, CALLER, run.id)
        [child] = [span for span in collector.spans if span.name == "enqueue ship" and span.parent == inner.id] or [
            await collector.span("enqueue ship", messaging__message__id=str(await result(db, job)))
        ]
        assert (child.trace, child.parent) == (TRACE, inner.id)
        run_of_child = await collector.span("run ship", messaging__message__id=str(await result(db, job)))
        assert run_of_child.parent == child.id


async def test_every_way_to_enqueue_passes_the_trace_on(traced: Ctl, collector: Collector, db: DB, dsn: str) -> None:
    start(traced)
    payload = json.dumps({"dsn": dsn})
    job = await db.fetchval("SELECT workerd.enqueue('many_ways', $1, traceparent => $2)", payload, TRACEPARENT)
    await until_state(db, job, "succeeded")
    run = await collector.span("run many_ways")
    ways = await db.fetch(
        """SELECT count(*), payload ->> 'how' AS how, count(DISTINCT split_part(options #>> '{trace,traceparent}', '-', 3)) AS spans,
            bool_and(options #>> '{trace,traceparent}' LIKE $1) AS traced
        FROM (SELECT task, payload, options FROM workerd.ready UNION ALL SELECT task, payload, options FROM workerd.scheduled
            UNION ALL SELECT task, payload, options FROM workerd.history) AS job
        WHERE task = 'ship' GROUP BY how ORDER BY how""",
        f"00-{TRACE}-%",
    )
    assert [tuple(row) for row in ways] == [
        (1000, "by copy", 1, True),
        (1, "by name", 1, True),
        (1, "first", 1, True),
        (1, "in a transaction", 1, True),
        (1, "later", 1, True),
        (2, "many", 1, True),
        (1, "second", 1, True),
    ]
    many = await collector.span("enqueue ship", messaging__batch__message_count=2)
    assert many.parent == run.id


async def test_the_notice_of_a_failure_is_part_of_its_trace(traced: Ctl, collector: Collector, db: DB) -> None:
    start(traced)
    await db.fetchval("SELECT workerd.enqueue('noted', traceparent => $1, tracestate => 'shop=1')", TRACEPARENT)
    assert (await collector.span("run noted")).trace == TRACE
    assert (await collector.span("run told")).trace == TRACE


async def test_a_request_to_the_manager_and_a_node_without_a_database_keep_the_trace(
    manager: ManagerProcess, remote: Settings, collector: Collector, daemon: DaemonProcess
) -> None:
    daemon.settings = remote.model_copy(update={"tasks": ("tests.traced_handlers",)})
    daemon._environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    daemon.start()
    assert remote.api_token is not None
    async with manager.client(remote.api_token) as client:
        job = {"task": "order", "payload": {"how": "post"}}
        answer = await client.post(
            "/api/v1/jobs", json=job, headers={"traceparent": TRACEPARENT, "tracestate": "shop=1"}
        )
        assert answer.status_code == 201, answer.text
    run, child = await collector.span("run order"), await collector.span("run ship")
    assert (run.trace, run.parent) == (TRACE, CALLER)
    assert (child.trace, child.parent) == (TRACE, (await collector.span("enqueue ship")).id)


async def test_a_daemon_without_traces_passes_them_on(ctl: Ctl, db: DB) -> None:
    ctl.environment["TASKS"] = "tests.traced_handlers"
    start(ctl)
    for task, payload in (("order", '{"how": "post"}'), ("in_child", "{}")):
        job = await db.fetchval("SELECT workerd.enqueue($1, $2, traceparent => $3)", task, payload, TRACEPARENT)
        child = await until_state(db, await result(db, job), "succeeded")
        kept = await db.fetchval("SELECT options -> 'trace' FROM workerd.history WHERE id = $1", child["id"])
        assert json.loads(kept) == {"traceparent": TRACEPARENT}


async def test_what_is_no_traceparent_is_left_out(queue: Queue, db: DB) -> None:
    await db.fetchval("SELECT workerd.enqueue('echo', traceparent => 'nonsense')")
    await db.fetchval("SELECT workerd.enqueue('echo', traceparent => $1, tracestate => $2)", TRACEPARENT, "x" * 513)
    kept = await db.fetch("SELECT options FROM workerd.ready ORDER BY id")
    assert kept[0]["options"] is None
    assert json.loads(kept[1]["options"]) == {"trace": {"traceparent": TRACEPARENT}}


async def test_a_dead_collector_disturbs_neither_jobs_nor_the_drain_nor_the_log(ctl: Ctl, queue: Queue) -> None:
    ctl.environment |= {
        "TASKS": "tests.traced_handlers",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
    }
    start(ctl)
    for _ in range(20):
        assert await queue.result(await queue.enqueue("ship", {"how": "post"}), timeout=60) == "post"
    began = time.monotonic()
    stopped = ctl("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert time.monotonic() - began < LIMIT
    lines = [line for line in ctl("logs", "--lines", "500").stdout.splitlines() if "trace" in line or "span" in line]
    assert 1 <= len(lines) <= 2, lines


def test_variables_of_opentelemetry_are_shown_with_where_they_came_from_headers_masked(ctl: Ctl) -> None:
    file = "OTEL_SERVICE_NAME=shop\nOTEL_EXPORTER_OTLP_HEADERS=authorization=abc\nOTEL_TRACES_SAMPLER=always_on\n"
    (ctl.directory / ".env").write_text(file)
    ctl.environment["OTEL_TRACES_SAMPLER"] = "always_off"
    shown = ctl.json("config")
    assert shown["OTEL_SERVICE_NAME"] == {"value": "shop", "source": "OTEL_SERVICE_NAME in .env"}
    assert shown["OTEL_EXPORTER_OTLP_HEADERS"]["value"] == "********"
    assert shown["OTEL_TRACES_SAMPLER"] == {"value": "always_off", "source": "OTEL_TRACES_SAMPLER in the environment"}


async def test_without_the_extra_one_line_says_what_to_install(ctl: Ctl, queue: Queue) -> None:
    (ctl.directory / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry'] = None\n")
    ctl.environment |= {
        "PYTHONPATH": f"{ctl.directory}:{os.environ.get('PYTHONPATH', '')}:{ROOT}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
    }
    start(ctl)
    assert await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=60) == 1
    lines = [line for line in ctl("logs", "--errors").stdout.splitlines() if "OTLP" in line]
    assert len(lines) == 1
    assert "pip install 'workerd[otel]'" in lines[0]


def start(ctl: Ctl) -> None:
    started = ctl("start")
    assert started.returncode == 0, started.stderr


def application(ctl: Ctl, collector: Collector) -> int:
    """Enqueues a job within a span; returns its id."""
    done = subprocess.run(
        [sys.executable, "-c", APPLICATION],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env={**os.environ, **ctl.environment, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


async def result(db: DB, job: int) -> int:
    return int((await until_state(db, job, "succeeded"))["result"])
