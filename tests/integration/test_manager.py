"""The manager's HTTP API: what it answers, whom it refuses, and what it writes down."""

from __future__ import annotations

import math
import re
import socket
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase

from tests.support import LIMIT, InProcess, state_of, until_state
from workerctl.manager import guards
from workerctl.manager.app import create_app
from workerd.errors import ConfigError
from workerd.queue import prune, tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    import asyncpg
    from fastapi import FastAPI

    from tests.manager_process import ManagerProcess
    from tests.support import Ctl
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

PAYLOAD = {"value": "<script>alert(1)</script>"}
OPEN = {"/healthz", "/readyz"}
WAITS = "/claim$|/notices$"  # what may wait for half a minute


@pytest.fixture
def app(queue: Queue) -> FastAPI:
    return create_app(queue)


@pytest.fixture
async def client_of(app: FastAPI, db: DB) -> AsyncIterator[Callable[[str | None], httpx.AsyncClient]]:
    """Clients by the scope of their token; None: without one."""
    given = {scope: await tokens.create(db, f"the {scope} one", [scope]) for scope in tokens.SCOPES}
    clients = []

    def make(scope: str | None) -> httpx.AsyncClient:
        headers = {} if scope is None else {"Authorization": f"Bearer {given.get(scope, scope)}"}
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://manager", headers=headers))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
def operator(client_of: Callable[[str], httpx.AsyncClient]) -> httpx.AsyncClient:
    return client_of("operate")


@pytest.fixture
def reader(client_of: Callable[[str], httpx.AsyncClient]) -> httpx.AsyncClient:
    return client_of("read")


async def enqueue(client: httpx.AsyncClient, **job: Any) -> int:
    answer = await client.post("/api/v1/jobs", json={"task": "echo", **job})
    assert answer.status_code == 201
    job_id: int = answer.json()["id"]
    return job_id


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Each method and path, with something in the place of names and ids."""
    found = [
        (
            method.upper(),
            re.sub(r"\{(job|node|order)_id\}", "1", path).replace("{name}", "default").replace("{node}", "nobody"),
        )
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]
    return [*found, ("GET", "/openapi.json")]


def bodies(app: FastAPI) -> list[tuple[str, str, Any]]:
    """Each method and path that takes JSON, and the example that OpenAPI shows."""
    told = app.openapi()
    models = told["components"]["schemas"]

    def shown(schema: dict[str, Any]) -> Any:
        if "$ref" in schema:
            return shown(models[schema["$ref"].rpartition("/")[2]])
        if "items" in schema:
            return [shown(schema["items"])]
        return shown(schema["anyOf"][0]) if "anyOf" in schema else schema.get("example")

    return [
        (
            method.upper(),
            path,
            shown(described["requestBody"]["content"]["application/json"]["schema"]),
        )
        for path, methods in told["paths"].items()
        for method, described in methods.items()
        if "requestBody" in described
    ]


def is_problem(answer: httpx.Response, status: int, detail: str = "") -> bool:
    told = answer.json()
    return (
        answer.status_code == status == told["status"]
        and answer.headers["content-type"] == "application/problem+json"
        and {"type", "title", "detail"} <= told.keys()
        and detail in told["detail"]
    )


# who may what


async def test_every_route_but_those_of_probes_wants_a_token(
    app: FastAPI, client_of: Callable[[str | None], httpx.AsyncClient], db: DB
) -> None:
    revoked = await tokens.create(db, "old", ["operate"])
    await tokens.revoke(db, "old")
    walked = 0
    for given in (None, revoked, "wkd_wrong", "ü"):
        client = client_of(given) if given != "ü" else client_of(None)
        for method, path in routes(app):
            if path not in OPEN:
                answer = await client.request(method, path)
                assert is_problem(answer, 401, "the token is missing or not valid")
                assert answer.headers["www-authenticate"].startswith("Bearer")
                walked += 1
    assert walked > 60


REMOTE = re.compile(r"/api/v1/(notices$|nodes$|nodes/1(/|$))")  # what nodes call that have no database
SHARED = re.compile(r"/api/v1/jobs(/1/signal)?$")  # both operators and handlers enqueue and answer


async def test_a_token_that_may_read_changes_nothing_by_any_route(
    app: FastAPI, client_of: Callable[[str], httpx.AsyncClient], queue: Queue, db: DB
) -> None:
    job = await queue.enqueue("echo", PAYLOAD)
    assert job == 1
    client = client_of("read")
    for method, path in routes(app):
        answer = await client.request(method, path, json={"workers": 3} if "scale" in path else None)
        if method != "GET" or (REMOTE.match(path) and path != "/api/v1/nodes") or path == "/api/v1/audit":
            assert is_problem(answer, 403, "the token the read one lacks the scope"), path
        else:
            assert answer.status_code in (200, 404)
    assert await state_of(db, job) == "queued"
    assert await db.fetchval("SELECT count(*) FROM workerd.audit") == 0
    assert await db.fetchval("SELECT count(*) FROM workerd.node") == 0


async def test_a_token_of_a_node_touches_nothing_but_its_own(
    app: FastAPI, client_of: Callable[[str], httpx.AsyncClient], queue: Queue, db: DB
) -> None:
    job = await queue.enqueue("echo", PAYLOAD)
    assert job == 1
    client = client_of("work")
    for method, path in routes(app):
        answer = await client.request(method, path, params={"patience": 0} if "notices" in path else None)
        if REMOTE.match(path) and not (method == "GET" and path == "/api/v1/nodes"):
            assert is_problem(answer, 410) or answer.status_code == 422 or path.endswith("notices"), path
        elif (method, path) == ("GET", "/api/v1/jobs/1"):
            assert answer.status_code == 200
        elif method == "POST" and SHARED.match(path):
            assert answer.status_code == 422
        elif path not in OPEN:
            assert is_problem(answer, 403, "the token the work one lacks the scope"), path
    assert await state_of(db, job) == "queued"
    assert await db.fetchval("SELECT count(*) FROM workerd.audit") == 0
    assert await db.fetchval("SELECT count(*) FROM workerd.node") == 0


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How many functions are called meanwhile: what takes time, on whatever machine."""
    calls = Counter[str]()

    def note(_frame: Any, event: str, _argument: Any) -> None:
        calls[event] += 1

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


async def test_wrong_revoked_and_missing_tokens_take_the_same_time(
    client_of: Callable[[str | None], httpx.AsyncClient], db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in calls of functions. Many tokens stand behind the revoked one: who looks no further would save them."""
    monkeypatch.setattr("workerctl.manager.access.FRESH", math.inf)
    revoked = await tokens.create(db, "old", ["operate"])
    await tokens.revoke(db, "old")
    for n in range(200):
        await tokens.create(db, f"token {n}", ["read"])
    took = {}
    for name, given in {"wrong": "wkd_" + "x" * 43, "revoked": revoked, "missing": None}.items():
        client = client_of(given)
        for _ in range(3):
            with counted() as calls:
                assert (await client.get("/api/v1/queues")).status_code == 401
        took[name] = calls.total()
    assert took["revoked"] == pytest.approx(took["wrong"], rel=0.01)
    assert took["missing"] == pytest.approx(took["wrong"], rel=0.05)


async def test_a_revoked_token_is_refused_within_a_second(
    reader: httpx.AsyncClient, db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await reader.get("/api/v1/queues")).status_code == 200
    await tokens.revoke(db, "the read one")
    assert (await reader.get("/api/v1/queues")).status_code == 200  # it was looked up just now
    monkeypatch.setattr("workerctl.manager.access.FRESH", 0.0)
    assert is_problem(await reader.get("/api/v1/queues"), 401)


async def test_tokens_are_made_listed_and_revoked_by_command(ctl: Ctl, db: DB) -> None:
    made = ctl("tokens", "create", "--scope", "read", "--scope", "work", "grafana")
    token = made.stdout.splitlines()[-1]
    assert token.startswith("wkd_")
    assert token not in str(await db.fetch("SELECT * FROM workerd.token"))
    again = ctl("tokens", "create", "--scope", "read", "grafana")
    assert "there is a token grafana already" in again.stderr
    wrong = ctl("tokens", "create", "--scope", "all", "other")
    assert "--scope is all, allowed are read, operate, work" in wrong.stderr
    assert "read, work" in (ctl("tokens", "list")).stdout
    ctl("tokens", "revoke", "grafana")
    assert "grafana" not in (ctl("tokens", "list")).stdout
    assert "there is no token grafana" in (ctl("tokens", "revoke", "grafana")).stderr


async def test_it_does_not_listen_for_others_while_there_is_no_token(queue: Queue, settings: Settings) -> None:
    from workerctl.manager.serve import serve

    open_to_all = settings.model_copy(update={"manager_host": "0.0.0.0"})  # noqa: S104
    with pytest.raises(ConfigError, match=r"--host is 0\.0\.0\.0, which others can reach, and there is no token yet"):
        await serve(queue, queue.dsn, open_to_all)


# jobs


async def test_it_says_where_it_is_once_it_listens(manager: ManagerProcess) -> None:
    await manager.stop()
    assert manager.log.read_text() == f"{manager.url}\n"


async def test_a_job_is_enqueued_run_and_shown(settings: Settings, operator: httpx.AsyncClient, db: DB) -> None:
    job = await enqueue(operator, payload=PAYLOAD, priority=3)
    async with InProcess(settings):
        await until_state(db, job, "succeeded")
    told = (await operator.get(f"/api/v1/jobs/{job}")).json()
    assert (told["state"], told["payload"], told["result"], told["priority"]) == (
        "succeeded",
        PAYLOAD,
        PAYLOAD["value"],
        3,
    )
    assert [attempt["outcome"] for attempt in told["attempts"]] == ["succeeded"]
    assert (await operator.delete(f"/api/v1/jobs/{job}")).status_code == 204
    assert is_problem(await operator.get(f"/api/v1/jobs/{job}"), 404, f"there is no job {job}")


async def test_a_list_is_enqueued_as_a_whole_and_answered_in_its_order(operator: httpx.AsyncClient, db: DB) -> None:
    jobs = [
        {"task": "echo", "payload": {"value": n}, **({"key": f"k{n}"} if n % 3 == 0 else {"priority": n % 2})}
        for n in range(20)
    ]
    ids = (await operator.post("/api/v1/jobs", json=jobs)).json()["ids"]
    rows = {
        row["id"]: row["value"]
        for row in await db.fetch("SELECT id, (payload ->> 'value')::int AS value FROM workerd.job")
    }
    assert [rows[job] for job in ids] == list(range(20))
    refused = await operator.post("/api/v1/jobs", json=[{"task": "echo"}, {"task": "echo", "payload": {"a": "\x00"}}])
    assert is_problem(refused, 422, "NUL")
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 20


async def test_a_key_makes_an_enqueue_idempotent(operator: httpx.AsyncClient) -> None:
    assert await enqueue(operator, key="once") == await enqueue(operator, key="once")


async def test_pages_show_each_job_once_whatever_comes_meanwhile(
    operator: httpx.AsyncClient, queue: Queue, reader: httpx.AsyncClient
) -> None:
    expected = [await queue.enqueue("echo", PAYLOAD, delay="1h" if n % 2 else None) for n in range(25)]
    for query, wanted in (
        ("", expected),
        ("&state=scheduled", expected[1::2]),
        ("&state=queued&task=echo&queue=default", expected[::2]),
    ):
        seen, cursor = [], ""
        while True:
            page = (await reader.get(f"/api/v1/jobs?limit=4{query}{cursor}")).json()
            seen += [job["id"] for job in page["jobs"]]
            await queue.enqueue("other")
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert [job for job in seen if job in expected] == wanted[::-1]
        assert len(set(seen)) == len(seen)


async def test_jobs_are_found_by_when_where_and_under_which_key(reader: httpx.AsyncClient, queue: Queue) -> None:
    job = await queue.enqueue("echo", key="mine")
    found = (await reader.get("/api/v1/jobs", params={"key": "mine", "since": "2020-01-01T00:00:00Z"})).json()["jobs"]
    assert [each["id"] for each in found] == [job]
    assert (await reader.get("/api/v1/jobs", params={"since": "2100-01-01T00:00:00Z"})).json()["jobs"] == []
    assert (await reader.get("/api/v1/jobs", params={"node": "nobody"})).json()["jobs"] == []
    assert is_problem(await reader.get("/api/v1/jobs", params={"since": "2020-01-01T00:00:00"}), 422, "with its zone")


async def test_what_fits_is_changed_when_as_many_fit_as_were_shown(
    operator: httpx.AsyncClient, queue: Queue, db: DB
) -> None:
    await queue.enqueue_many("echo", [PAYLOAD] * 7)
    bulk = {"action": "cancel", "filter": {"task": "echo"}}
    assert (await operator.post("/api/v1/jobs/bulk", json=bulk)).json() == {"matched": 7, "done": 0, "refused": 0}
    stale = await operator.post("/api/v1/jobs/bulk", json={**bulk, "expected": 6})
    assert is_problem(stale, 409, "7 jobs fit, expected were 6: look again")
    assert stale.json()["matched"] == 7
    assert await db.fetchval("SELECT count(*) FROM workerd.history") == 0
    for action, state in (("cancel", None), ("retry", "cancelled"), ("cancel", "queued"), ("delete", "cancelled")):
        wanted = {"action": action, "filter": {"task": "echo", "state": state}, "expected": 7}
        assert (await operator.post("/api/v1/jobs/bulk", json=wanted)).json() == {"matched": 7, "done": 7, "refused": 0}
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 0


async def test_what_a_sensitive_task_carries_is_for_operators_alone(
    operator: httpx.AsyncClient, reader: httpx.AsyncClient, queue: Queue, db: DB
) -> None:
    await db.execute(
        "INSERT INTO workerd.task (name, queue, priority, max_retries, sensitive) VALUES ('secret', 'default', 0, 3, true)"
    )
    job = await queue.enqueue("secret", {"card": "4111"})
    assert (await operator.get(f"/api/v1/jobs/{job}")).json()["payload"] == {"card": "4111"}
    assert (await reader.get(f"/api/v1/jobs/{job}")).json()["payload"] is None


async def test_changes_are_on_record_for_ninety_days(db: DB) -> None:
    await db.execute("""
        INSERT INTO workerd.audit (at, who, action)
        SELECT now() - n * interval '1 day', 'me', 'day ' || n FROM generate_series(95, 0, -1) n
    """)
    await prune.prune(db, 60)
    assert await db.fetchval("SELECT array_agg(action ORDER BY id) FROM workerd.audit") == [
        f"day {n}" for n in range(89, -1, -1)
    ]


async def test_every_change_is_written_down(operator: httpx.AsyncClient, db: DB) -> None:
    job = await enqueue(operator)
    for path in (
        f"jobs/{job}/cancel",
        f"jobs/{job}/retry",
        "queues/default/pause",
        "queues/default/resume",
        "queues/default/purge",
    ):
        assert (await operator.post(f"/api/v1/{path}")).status_code == 200
    assert (await operator.delete(f"/api/v1/jobs/{job}")).status_code == 204
    entries = (await operator.get("/api/v1/audit")).json()
    assert [entry["action"] for entry in entries] == [
        "delete",
        "purge",
        "resume",
        "pause",
        "retry",
        "cancel",
        "enqueue",
    ]
    assert {entry["who"] for entry in entries} == {"the operate one"}
    assert entries[1]["detail"] == {"cancelled": 1}


async def test_a_node_is_seen_scaled_and_drained(settings: Settings, operator: httpx.AsyncClient) -> None:
    async with InProcess(settings) as node:
        (shown,) = (await operator.get("/api/v1/nodes")).json()
        name = shown["name"]
        scaled = (await operator.post(f"/api/v1/nodes/{name}/scale", json={"workers": 4})).json()
        assert (scaled["done"], scaled["result"]["workers"]) == (True, 4)
        assert (await operator.get(f"/api/v1/nodes/{name}/jobs")).json() == {"jobs": [], "next": None}
        assert (await operator.post(f"/api/v1/nodes/{name}/drain")).json()["done"]
        await node.stop()
    assert is_problem(await operator.post(f"/api/v1/nodes/{name}/drain"), 409, "is dead")
    assert is_problem(await operator.post("/api/v1/nodes/nobody/drain"), 404, "there is no node nobody")


async def test_a_schedule_is_shown_run_and_paused(operator: httpx.AsyncClient, queue: Queue) -> None:
    from workerd import schedule

    await queue.schedule("echo", schedule("0 6 * * mon", tz="Europe/Berlin", payload=PAYLOAD))
    (shown,) = (await operator.get("/api/v1/schedules")).json()
    assert len(shown["next"]) == 3
    assert shown["words"]
    job = (await operator.post("/api/v1/schedules/echo/run")).json()["id"]
    assert (await operator.get(f"/api/v1/jobs/{job}")).json()["payload"] == PAYLOAD
    assert (await operator.post("/api/v1/schedules/echo/pause")).json() == {"name": "echo", "paused": True}
    assert (await operator.post("/api/v1/schedules/echo/resume")).json() == {"name": "echo", "paused": False}
    assert is_problem(await operator.post("/api/v1/schedules/nope/run"), 404, "there is no schedule nope")


# what is refused


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({}, "task: Field required"),
        ({"task": "echo", "nope": 1}, "nope: Extra inputs are not permitted"),
        ({"task": "echo", "priority": "high"}, "priority: Input should be a valid integer"),
        ({"task": "echo", "run_at": "2030-01-01T00:00:00"}, "run_at has no time zone"),
        ({"task": "echo", "payload": {"a": "x" * 1_000_000}}, "the limit is 1,000,000"),
    ],
)
async def test_a_wrong_job_is_a_problem_that_says_what_is_wrong(
    operator: httpx.AsyncClient, job: dict[str, Any], said: str
) -> None:
    answer = await operator.post("/api/v1/jobs", json=job)
    assert is_problem(answer, 422)
    assert said in answer.text


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(
    operator: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "MAX_BODY", 1000)
    assert is_problem(await operator.post("/api/v1/jobs", json={"task": "x" * 2000}), 413, "more than 1,000 bytes")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    assert is_problem(await operator.post("/api/v1/jobs", content=chunks()), 413)


async def test_a_client_that_comes_too_often_is_told_to_wait(
    operator: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "BURST", 3.0)
    monkeypatch.setattr(guards, "RATE", 0.001)
    answers = [await operator.get("/healthz") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].headers["retry-after"] == "1"


async def test_without_the_database_it_lives_and_is_not_ready(operator: httpx.AsyncClient, queue: Queue) -> None:
    assert (await operator.get("/readyz")).status_code == 200
    await queue.close()
    assert (await operator.get("/healthz")).json()["live"] is True
    assert (await operator.get("/readyz")).status_code == 503
    assert is_problem(await operator.get("/api/v1/queues"), 503)


async def test_prometheus_reads_depths_and_nodes(reader: httpx.AsyncClient, queue: Queue) -> None:
    await queue.enqueue("echo")
    text = (await reader.get("/metrics")).text
    assert 'workerd_queue_jobs{queue="default",state="queued"} 1.0' in text
    assert 'workerd_nodes{state="alive"} 0.0' in text


async def test_each_body_has_an_example_that_is_understood(
    app: FastAPI, client_of: Callable[[str | None], httpx.AsyncClient]
) -> None:
    found = bodies(app)
    assert [path for _, path, example in found if example in (None, [None])] == []
    work, operate = client_of("work"), client_of("operate")
    [entering] = [example for _, path, example in found if path.endswith("/nodes")]
    node = (await work.post("/api/v1/nodes", json=entering)).json()["id"]
    for method, path, example in found:
        client = work if "{node_id}" in path or path.endswith("/nodes") else operate
        path = re.sub(r"\{\w+\}", "42", path.replace("{node_id}", node))
        answer = await client.request(method, path, json={**example, "wait": 0} if "wait" in example else example)
        assert answer.is_success or answer.status_code in (404, 409), f"{path}: {answer.text}"


def made_up(app: FastAPI, many: int) -> list[dict[str, Any]]:
    """So many requests for each operation of the OpenAPI description, the same ones each time."""
    requests = []
    for found in schemathesis.openapi.from_dict(app.openapi()).get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr] # the description is valid

        @hypothesis.settings(
            max_examples=many,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def make(case: Any) -> None:
            given = case.as_transport_kwargs(base_url="http://manager")
            given["headers"].pop("Authorization", None)  # made up as well
            requests.append({name: value for name, value in given.items() if value or name == "json"})

        if not re.search(WAITS, operation.path):
            make()
    return requests


@pytest.mark.long
async def test_whatever_is_sent_there_is_no_server_error(app: FastAPI, client_of: Any, db: DB, queue: Queue) -> None:
    await queue.enqueue_many("echo", [PAYLOAD] * 3)
    client = client_of(await tokens.create(db, "tester", ["operate", "work"]))
    requests = made_up(app, 3)
    assert len(requests) > 100
    answers = [(request, await client.request(**request)) for request in requests]
    assert [request for request, answer in answers if answer.status_code == 401] == []
    assert len([request for request, answer in answers if answer.is_success]) > 30, "what is refused is not tried"
    assert [(request, answer.text) for request, answer in answers if answer.is_server_error] == []


@pytest.mark.long
async def test_however_much_is_sent_there_is_no_server_error(dsn: str, db: DB, queue: Queue, tmp_path: Any) -> None:
    """Requests made up from the OpenAPI description, with what lies at its limits and beyond, against the real program."""
    await queue.enqueue_many("echo", [PAYLOAD] * 3)
    token = await tokens.create(db, "tester", ["operate", "work"])
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": ":".join(sys.path),
        "DATABASE_URL": dsn,
        "HOME": str(tmp_path),
    }
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    served = subprocess.Popen(
        [sys.executable, "-m", "workerctl", "manager", "--port", port], env=environment, cwd=tmp_path
    )
    try:
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=50), timeout=LIMIT) as client:
            await _until_served(client, port)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "schemathesis.cli",
                "run",
                f"http://127.0.0.1:{port}/openapi.json",
                "-H",
                f"Authorization: Bearer {token}",
                "--exclude-path-regex",
                WAITS,
                "--checks",
                "not_a_server_error",
                "--phases",
                "examples,coverage,fuzzing",
                "--workers",
                "4",
                "--max-examples",
                "10",
                "--seed",
                "1",
            ],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert re.search(r"(\d{3,}) generated, \1 passed", done.stdout), done.stdout[-5000:] + done.stderr[-2000:]
    finally:
        served.terminate()
        served.wait(60)


async def _until_served(client: httpx.AsyncClient, port: str) -> None:
    import asyncio

    async with asyncio.timeout(20):
        while True:
            try:
                await client.get(f"http://127.0.0.1:{port}/healthz")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return
