"""The page without a browser: what it shows, whom it lets in, what its forms may do."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support import InProcess, state_of, until, until_state
from workerctl.manager.app import create_app
from workerctl.manager.page import routes as page_routes
from workerctl.manager.page.visitor import COOKIE, csrf_of
from workerd.queue import tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg
    from fastapi import FastAPI

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

NASTY = "<script>alert(1)</script>"
PAGES = ("/", "/jobs", "/queues", "/nodes", "/schedules", "/docs")


@pytest.fixture
def app(queue: Queue) -> FastAPI:
    return create_app(queue)


async def browser(app: FastAPI, db: DB, scope: str) -> httpx.AsyncClient:
    """One that has logged in."""
    token = await tokens.create(db, f"the {scope} one", [scope])
    app.state.access.forget()
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://manager")
    answer = await client.post("/login", data={"token": token, "next": "/jobs"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs")
    return client


@pytest.fixture
async def operator(app: FastAPI, db: DB) -> AsyncIterator[httpx.AsyncClient]:
    client = await browser(app, db, "operate")
    yield client
    await client.aclose()


@pytest.fixture
async def reader(app: FastAPI, db: DB) -> AsyncIterator[httpx.AsyncClient]:
    client = await browser(app, db, "read")
    yield client
    await client.aclose()


async def page(client: httpx.AsyncClient, path: str) -> str:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


async def csrf(client: httpx.AsyncClient) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', await page(client, "/queues"))
    assert found is not None
    return found[1]


async def act(client: httpx.AsyncClient, path: str, **fields: str) -> httpx.Response:
    return await client.post(path, data={"csrf": await csrf(client), **fields})


# who is let in


@pytest.mark.parametrize("path", [*PAGES, "/jobs/1", "/events?view=/"])
async def test_who_has_not_logged_in_is_led_to_the_login_and_back(app: FastAPI, path: str) -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://manager") as client:
        answer = await client.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=%2F")
        assert 'type="password"' in await page(client, answer.headers["location"])


async def test_a_wrong_token_is_refused_and_another_site_is_no_way_back(app: FastAPI, db: DB) -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://manager") as client:
        answer = await client.post("/login", data={"token": "wkd_wrong"})
        assert answer.status_code == 401
        assert COOKIE not in client.cookies
        token = await tokens.create(db, "one", ["read"])
        app.state.access.forget()
        for away in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"):
            answer = await client.post("/login", data={"token": token, "next": away})
            assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie


async def test_the_address_on_the_terminal_works_once_and_its_token_ends_with_the_manager(app: FastAPI, db: DB) -> None:
    address = app.state.once.offer()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://manager") as client:
        assert (await client.get(address)).status_code == 303
        assert "Overview" in await page(client, "/")
        assert (await client.get(address)).status_code == 401
        await app.state.once.close()
        app.state.access.forget()
        assert (await client.get("/")).status_code == 303


async def test_logging_out_forgets_the_token(operator: httpx.AsyncClient) -> None:
    assert (await operator.post("/logout")).status_code == 303
    assert (await operator.get("/")).status_code == 303


# what it shows


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_shows_an_empty_database(operator: httpx.AsyncClient, path: str) -> None:
    text = await page(operator, path)
    assert text.count("<h1>") == 1
    assert "None" in text or path in ("/queues", "/docs")


async def test_the_api_is_described_with_every_route_and_field(app: FastAPI, operator: httpx.AsyncClient) -> None:
    text = await page(operator, "/docs")
    told = app.openapi()
    assert [path for path in told["paths"] if f"<code>{path}</code>" not in text] == []
    assert [name for name in told["components"]["schemas"] if f'id="{name}"' not in text] == []
    assert "http" not in text.replace("HTTP", ""), "it needs no other address"


@pytest.mark.parametrize("path", ["/nowhere", "/jobs/7", "/nodes/nobody", "/queues/none/purge", "/jobs/x"])
async def test_what_there_is_not_is_said_on_a_page(operator: httpx.AsyncClient, path: str) -> None:
    answer = await operator.get(path)
    assert answer.status_code in (404, 405)
    if path != "/nowhere":
        assert '<p role="alert">' in answer.text


async def test_whatever_a_job_carries_is_shown_as_text(
    settings: Settings, queue: Queue, operator: httpx.AsyncClient, db: DB
) -> None:
    async with InProcess(settings):
        job = await queue.enqueue("echo", {"value": NASTY + "&'\""}, key=NASTY, queue=NASTY)
        await until_state(db, job, "succeeded")
    await queue.enqueue(NASTY, {"x": "y" * 999_000}, key="long")
    for path in (
        "/",
        "/jobs",
        f"/jobs/{job}",
        f"/jobs/{job + 1}",
        "/queues",
        "/jobs?task=%3Cscript%3Ealert(1)%3C%2Fscript%3E",
    ):
        text = await page(operator, path)
        assert NASTY not in text
        assert len(text) < 300_000
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in await page(operator, f"/jobs/{job}")
    assert "further characters" in await page(operator, f"/jobs/{job + 1}")


async def test_a_failure_is_shown_with_its_traceback_and_log(
    settings: Settings, queue: Queue, operator: httpx.AsyncClient, db: DB
) -> None:
    async with InProcess(settings):
        job = await queue.enqueue("stumble", {"until_attempt": 9}, max_retries=1)
        await until_state(db, job, "failed")
    text = await page(operator, f"/jobs/{job}")
    assert text.count("Traceback (most recent call last)") == 2
    assert "Retry now" in text
    assert f'href="/jobs/{job}"' in await page(operator, "/jobs?state=failed")
    assert f'href="/jobs/{job}"' not in await page(operator, "/jobs?state=queued")


async def test_pages_of_jobs_lead_to_older_ones_and_back(queue: Queue, operator: httpx.AsyncClient) -> None:
    ids = await queue.enqueue_many("echo", [{"value": n} for n in range(120)])
    seen: list[int] = []
    path = "/jobs?task=echo"
    while path:
        text = await page(operator, path)
        seen += [int(each) for each in re.findall(r'href="/jobs/(\d+)"', text)]
        older = re.search(r'href="([^"]+)" rel="next"', text)
        path = older[1].replace("&amp;", "&") if older else ""
    assert seen == sorted(ids, reverse=True)
    assert f'href="/jobs/{ids[0]}"' in await page(operator, f"/jobs?id={ids[0]}")


async def test_arguments_of_a_sensitive_task_are_hidden_from_readers(
    queue: Queue, operator: httpx.AsyncClient, reader: httpx.AsyncClient, db: DB
) -> None:
    await db.execute(
        "INSERT INTO workerd.task (name, queue, priority, max_retries, sensitive) VALUES ('s', 'default', 0, 3, true)"
    )
    job = await queue.enqueue("s", {"iban": "DE00"})
    assert "DE00" in await page(operator, f"/jobs/{job}")
    assert "DE00" not in await page(reader, f"/jobs/{job}")


# what it changes


async def test_a_reader_finds_no_form_and_changes_nothing(reader: httpx.AsyncClient, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("echo", {"value": 1})
    assert 'name="csrf"' not in await page(reader, f"/jobs/{job}")
    token = csrf_of(reader.cookies[COOKIE])
    walked = 0
    for route in page_routes.router.routes:
        path = getattr(route, "path", "")
        if "POST" in (getattr(route, "methods", None) or ()) and not path.startswith(("/api/", "/log")):
            there = re.sub(r"\{job_id\}", str(job), path)
            there = re.sub(r"\{name(:path)?\}", "default", there).replace(
                "{action}", "cancel" if "jobs" in path else "pause"
            )
            answer = await reader.post(there, data={"csrf": token, "action": "cancel", "workers": "3"})
            assert answer.status_code == 403, there
            walked += 1
    assert walked >= 6
    assert await state_of(db, job) == "queued"
    assert await db.fetchval("SELECT count(*) FROM workerd.audit") == 0


async def test_a_form_from_elsewhere_changes_nothing(operator: httpx.AsyncClient, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("echo", {"value": 1})
    for data in ({}, {"csrf": ""}, {"csrf": "ü"}, {"csrf": "0" * 64}):
        assert (await operator.post(f"/jobs/{job}/cancel", data=data)).status_code == 403
    assert await state_of(db, job) == "queued"


async def test_a_job_is_retried_cancelled_and_deleted(operator: httpx.AsyncClient, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("echo", {"value": 1})
    assert (await act(operator, f"/jobs/{job}/cancel")).headers["location"] == f"/jobs/{job}"
    assert await state_of(db, job) == "cancelled"
    assert (await act(operator, f"/jobs/{job}/retry")).status_code == 303
    assert await state_of(db, job) == "queued"
    assert (await act(operator, f"/jobs/{job}/delete")).status_code == 409
    await queue.cancel(job)
    assert (await act(operator, f"/jobs/{job}/delete")).headers["location"] == "/jobs"
    assert await state_of(db, job) is None
    assert await db.fetchval("SELECT count(*) FROM workerd.audit WHERE who = 'the operate one'") == 3


async def test_many_jobs_are_changed_when_their_number_was_seen(
    operator: httpx.AsyncClient, queue: Queue, db: DB
) -> None:
    ids = await queue.enqueue_many("echo", [{"value": n} for n in range(7)])
    shown = await act(operator, "/jobs/bulk", action="cancel", task="echo")
    assert "<strong>7</strong> jobs fit" in shown.text
    assert await state_of(db, ids[0]) == "queued"
    await queue.enqueue("echo", {"value": 8})
    changed = await act(operator, "/jobs/bulk", action="cancel", task="echo", expected="7")
    assert changed.status_code == 409
    assert "<strong>8</strong> jobs fit" in changed.text
    done = await act(operator, "/jobs/bulk", action="cancel", task="echo", expected="8")
    assert "8 of 8 jobs" in done.text
    assert await state_of(db, ids[0]) == "cancelled"


async def test_a_queue_of_any_name_is_paused_resumed_and_purged(
    operator: httpx.AsyncClient, queue: Queue, db: DB
) -> None:
    name = "a/b ü?"
    job = await queue.enqueue("echo", {"value": 1}, queue=name)
    text = await page(operator, "/queues")
    [pause] = re.findall(r'formaction="(/queues/[^"]+/pause)"', text)
    assert (await act(operator, pause)).status_code == 303
    assert await db.fetchval("SELECT paused_at IS NOT NULL FROM workerd.queue WHERE name = $1", name)
    assert (await act(operator, pause.replace("/pause", "/resume"))).status_code == 303
    assert await db.fetchval("SELECT paused_at IS NULL FROM workerd.queue WHERE name = $1", name)
    assert "Cancel 1 jobs" in await page(operator, pause.replace("/pause", "/purge"))
    assert (await act(operator, pause.replace("/pause", "/purge"))).status_code == 303
    assert await state_of(db, job) == "cancelled"


async def test_a_node_is_scaled_and_drained(node: InProcess, operator: httpx.AsyncClient) -> None:
    [path] = re.findall(r'href="(/nodes/\d+)"', await page(operator, "/nodes"))
    assert (await act(operator, f"{path}/scale", workers="3")).status_code == 303
    assert (await node.ask("status"))["data"]["workers"] == 3
    refused = await act(operator, f"{path}/scale", workers="many")
    assert refused.status_code == 422
    assert "workers is &#39;many&#39;" in refused.text
    assert (await act(operator, f"{path}/drain")).status_code == 303


# news


async def test_streams_tell_what_has_changed_and_cost_no_more_than_one(
    app: FastAPI, queue: Queue, db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    hub = app.state.hub
    render = hub._render

    async def counted(view: str, sees: bool) -> Any:
        nonlocal looks
        looks += 1
        return await render(view, sees)

    monkeypatch.setattr(hub, "_render", counted)
    streams = [hub.follow("/jobs", True) for _ in range(200)]
    first = await asyncio.gather(*[anext(stream) for stream in streams])
    assert len(set(first)) == 1
    job = await queue.enqueue("echo", {"value": 1})
    second = await asyncio.gather(*[anext(stream) for stream in streams])
    assert f'href="/jobs/{job}"' in second[0]
    assert len(set(second)) == 1
    assert looks <= 5
    for stream in streams:
        await stream.aclose()
    assert not hub._streams


async def test_progress_is_written_for_those_who_look_and_else_as_the_settings_say(
    app: FastAPI, settings: Settings, queue: Queue, db: DB
) -> None:
    async with InProcess(settings.model_copy(update={"progress_interval": 3600.0})):
        job = await queue.enqueue("held_after_progress")
        written = "SELECT message FROM workerd.progress WHERE id = $1"

        async def message() -> Any:
            return await db.fetchval(written, job)

        assert await until(message, "the first report") == "one"
        stream = app.state.hub.follow(f"/jobs/{job}", True)
        async for text in stream:
            if "three" in text:
                break
        await stream.aclose()
        assert await queue.cancel(job)
        await until_state(db, job, "cancelled")


async def test_an_event_carries_the_new_piece_of_the_page(manager_page: httpx.AsyncClient, queue: Queue) -> None:
    async with manager_page.stream("GET", "/events", params={"view": "/jobs"}) as stream:
        lines = stream.aiter_lines()

        async def event() -> str:
            async for line in lines:
                if line.startswith("data: "):
                    return str(json.loads(line.removeprefix("data: ")))
            raise AssertionError("the stream has ended")

        assert "None." in await asyncio.wait_for(event(), 60)
        job = await queue.enqueue("echo", {"value": 1})
        assert f'href="/jobs/{job}"' in await asyncio.wait_for(event(), 60)


@pytest.fixture
async def manager_page(manager: Any, db: DB) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a real manager, which has logged in."""
    token = await tokens.create(db, "reader", ["read"])
    async with httpx.AsyncClient(base_url=manager.url, timeout=30) as client:

        async def in_time() -> bool:  # the manager has read the tokens less than a second ago, perhaps
            return (await client.post("/login", data={"token": token})).status_code == 303

        await until(in_time, "the token is known")
        yield client
