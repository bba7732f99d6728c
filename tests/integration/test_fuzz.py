"""Whatever is enqueued, asked for or ended in whatever way: no node stops, no job is lost, no list fails, no error is a raw one."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import rude_values as rude
from tests.support import until
from workerd.errors import WorkerdError
from workerd.queue import inspect, tokens

if TYPE_CHECKING:
    import httpx

    from tests.manager_process import ManagerProcess
    from tests.support import InProcess
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]

TASKS = ("echo", "ends_rudely", "ends_rudely_in_thread", "elsewhere")
PER_BATCH = 50
LOOKS = 20  # at all lists, in the course of the cases
LISTS = ("jobs", "queues", "nodes", "schedules", "stats", "errors", "limits")
INTERNAL = ("XX", "58")  # SQLSTATE classes of what should not happen in a server

enqueues = st.tuples(
    st.just("python"), st.sampled_from(TASKS) | rude.texts, rude.payloads | rude.anything, rude.options, st.booleans()
)
rude_ends = st.tuples(
    st.just("ending"), st.sampled_from(TASKS[1:3]), st.sampled_from(["returns", "raises"]), st.integers(0, 99)
)
by_sql = st.tuples(
    st.just("sql"),
    st.sampled_from(TASKS) | rude.texts,
    st.just("{}") | st.sampled_from(rude.JSONS),
    st.lists(st.sampled_from(sorted(rude.SQL_OPTIONS)), max_size=2, unique=True),
    st.integers(0, 99),
)
by_http = st.tuples(
    st.just("http"),
    st.sampled_from(TASKS) | rude.texts,
    st.just("{}") | st.sampled_from(rude.JSONS),
    st.just({}) | rude.options,
)
ends_by_http = st.tuples(st.just("http end"), rude.ENDS, rude.TELLINGS)
signals = st.tuples(st.just("signal"), st.integers(0, 99), rude.texts, rude.anything, st.sampled_from(rude.JSONS))
changes = st.tuples(st.just("change"), st.integers(0, 99), rude.payloads | st.none(), rude.options)
commands = st.tuples(st.sampled_from(["cancel", "retry"]), st.integers(0, 99) | st.sampled_from([-1, 2**63, "x"]))
batches = st.lists(
    st.one_of(enqueues, rude_ends, by_sql, by_http, ends_by_http, changes, commands, signals),
    min_size=PER_BATCH,
    max_size=PER_BATCH,
)


@dataclass
class Site:
    """Where the cases are tried, and the ids of the jobs that were taken."""

    queue: Queue
    db: DB
    client: httpx.AsyncClient
    node: str = "/api/v1/nodes/1"
    ids: list[int] = field(default_factory=list)

    async def attempt(self, case: tuple[Any, ...]) -> None:
        kind, *rest = case
        await getattr(self, f"_{kind.replace(' ', '_')}")(*rest)

    async def _python(self, task: str, payload: Any, options: dict[str, Any], several: bool) -> None:
        try:
            if several:
                self.ids += await self.queue.enqueue_many(task, [payload, {}], **options)
            else:
                self.ids.append(await self.queue.enqueue(task, payload, **options))
        except WorkerdError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 - most are refused

    async def _ending(self, task: str, how: str, which: int) -> None:
        self.ids.append(await self.queue.enqueue(task, {"how": how, "which": which}))

    async def _sql(self, task: str, payload: str, names: list[str], which: int) -> None:
        given = {name: rude.SQL_OPTIONS[name] for name in names}
        listed = "".join(f", {name} => ${n}::text::{kind}" for n, (name, (kind, _)) in enumerate(given.items(), 3))
        try:
            call = f"SELECT workerd.enqueue($1, $2::text::jsonb{listed})"
            self.ids.append(
                await self.db.fetchval(call, task, payload, *(texts[which % len(texts)] for _, texts in given.values()))
            )
        except asyncpg.PostgresError as error:
            if str(error.sqlstate).startswith(INTERNAL):
                raise

    async def _http(self, task: str, payload: str, options: dict[str, Any]) -> None:
        body = (
            json.dumps({"task": task, **options}, default=str, skipkeys=True)[:-1]
            + f', "payload": {payload or "null"}}}'
        )
        answer = await self._send("/api/v1/jobs", body)
        if answer.is_success:
            self.ids.append(answer.json()["id"])

    async def _http_end(self, end: dict[str, Any], telling: dict[str, Any]) -> None:
        """Tells of a job of a node that speaks HTTP, and ends it; what is refused is given back."""
        self.ids.append(await self.queue.enqueue("elsewhere"))
        claimed = await self._claim()
        jobs = claimed["jobs"]
        held = [{"n": claimed["n"], "pos": job["pos"], "id": job["id"]} for job in jobs]
        for each in held:
            await self._tell(each, **telling)
        ends = [{**each, **end} for each in held]
        answer = await self._post(f"{self.node}/finish", {"ends": ends})
        if not answer.is_success and jobs:
            given_back = {"n": claimed["n"], "positions": [job["pos"] for job in jobs]}
            assert (await self._post(f"{self.node}/release", given_back)).is_success

    async def _tell(self, held: dict[str, Any], number: Any, text: str, result: str) -> None:
        lines = [{"number": number, "message": text, "age": number}]
        reports = {"reports": [{**held, "fraction": number, "message": text}], "logged": [{**held, "lines": lines}]}
        await self._post(f"{self.node}/progress", reports)
        job = f"{self.node}/jobs/{held['id']}"
        await self._post(f"{job}/steps", {**held, "name": text, "result": result})
        await self._post(f"{job}/await", {**held, "event": text, "timeout": number})

    async def _claim(self) -> Any:
        """By a node that is entered anew when its silence was too long."""
        while True:
            answer = await self._post(f"{self.node}/claim", {"batch": 20})
            if answer.is_success:
                return answer.json()
            assert answer.status_code in (404, 410), answer.text
            entered = await self._post("/api/v1/nodes", {"name": "elsewhere", "tasks": [{"name": "elsewhere"}]})
            self.node = f"/api/v1/nodes/{entered.json()['id']}"

    async def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return await self._send(path, json.dumps(body))

    async def _send(self, path: str, body: str) -> httpx.Response:
        sent = body.encode(errors="surrogatepass")
        answer = await self.client.post(path, content=sent, headers={"Content-Type": "application/json"})
        assert answer.status_code < 500, (body, answer.text)
        assert answer.is_success or "\n" not in answer.json()["detail"], (body, answer.text)
        return answer

    async def _change(self, which: int, payload: dict[str, Any] | None, options: dict[str, Any]) -> None:
        wanted = {
            name: value
            for name, value in options.items()
            if name in ("queue", "priority", "delay", "run_at", "max_retries")
        }
        with contextlib.suppress(WorkerdError):
            await self.queue.change(self._of(which), payload=payload, **wanted)

    async def _cancel(self, which: Any) -> None:
        with contextlib.suppress(WorkerdError):
            await self.queue.cancel(self._of(which))

    async def _retry(self, which: Any) -> None:
        with contextlib.suppress(WorkerdError):
            await self.queue.retry(self._of(which))

    async def _signal(self, which: int, event: str, payload: Any, text: str) -> None:
        with contextlib.suppress(WorkerdError):
            await self.queue.signal(self._of(which), event, payload)
        await self._send(
            f"/api/v1/jobs/{self._of(which)}/signal", f'{{"event": {json.dumps(event)}, "payload": {text or "null"}}}'
        )

    def _of(self, which: Any) -> Any:
        return self.ids[which % len(self.ids)] if isinstance(which, int) and 0 <= which < 100 and self.ids else which

    async def check(self) -> None:
        """The node works, what was taken is in one table each, and every list can be read."""
        assert await self.queue.result(await self.queue.enqueue("echo", {"value": "alive"}), timeout=120) == "alive"
        found = await self.db.fetch(
            """SELECT id, (SELECT count(*) FROM workerd.ready r WHERE r.id = given.id)
                + (SELECT count(*) FROM workerd.scheduled s WHERE s.id = given.id)
                + (SELECT count(*) FROM workerd.history h WHERE h.id = given.id) AS places FROM unnest($1::bigint[]) AS given(id)""",
            self.ids,
        )
        assert [dict(row) for row in found if row["places"] != 1] == []
        await inspect.jobs(self.db, inspect.Filter(), 1000)
        for each in LISTS:
            answer = await self.client.get(f"/api/v1/{each}")
            assert answer.status_code in (200, 404), (each, answer.text)
        for job in self.ids[-5:]:
            assert (await self.client.get(f"/api/v1/jobs/{job}")).status_code == 200


@pytest.fixture
async def site(node: InProcess, queue: Queue, db: DB, manager: ManagerProcess) -> Any:
    token = await tokens.create(db, "fuzz", ["operate", "work"])
    async with manager.client(token) as client:
        yield Site(queue, db, client)


@pytest.mark.parametrize("examples", [20, pytest.param(400, marks=pytest.mark.long)])
async def test_whatever_comes_no_node_stops_no_job_is_lost_and_no_list_fails(site: Site, examples: int) -> None:
    drawn: list[list[tuple[Any, ...]]] = []

    @settings(
        max_examples=examples,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(batch=batches)
    def draw(batch: list[tuple[Any, ...]]) -> None:
        drawn.append(batch)

    draw()
    assert len(drawn) * PER_BATCH >= examples * PER_BATCH
    for number, batch in enumerate(drawn):
        for case in batch:
            try:
                await site.attempt(case)
            except Exception as error:
                raise AssertionError(f"{case!r:.3000}") from error
        if number % (examples // LOOKS) == 0:
            await site.check()
    await until(lambda: site.db.fetchval("SELECT NOT EXISTS (SELECT FROM workerd.lease)"), "nothing runs any more")
    await site.check()
