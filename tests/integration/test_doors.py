"""What cannot be stored, staged or run is refused at each door with one line: SQL, Python, HTTP, the command line."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest

from workerctl.manager.app import create_app
from workerd import RetryAfter, Snooze, schedule, task
from workerd.errors import PayloadError, SchemaError, TaskError
from workerd.limit import Limit
from workerd.queue import limits, migrate, tokens
from workerd.queue.claim import BEGINNING, Wanted, claim
from workerd.queue.lane import lanes
from workerd.tasks import registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support import Ctl
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]

END = datetime.max.replace(tzinfo=UTC)
DEEP = json.loads('{"value":' + "[" * 200 + "]" * 200 + "}")
LONG = "x" * 300


def _nested(levels: int) -> str:
    return '{"value": ' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


SQL = {
    "enqueue('echo', deadline => 'infinity')": "deadline is infinity, allowed are times between the years 1 and 9999",
    "enqueue('echo', deadline => '-infinity')": "deadline is -infinity",
    "enqueue('echo', deadline => '9999-12-31')": "deadline is 9999-12-31",
    "enqueue('echo', run_at => 'infinity')": "run_at is infinity",
    "enqueue('echo', run_at => '-infinity')": "run_at is -infinity",
    "enqueue('echo', run_at => '4713-01-01 BC')": "BC, allowed are times",
    "enqueue('echo', run_at => '200000-01-01')": "run_at is 200000-01-01",
    "enqueue('echo', delay => '100000 years')": "allowed are times",
    "enqueue('echo', key => repeat('é', 501))": "key has 1002 bytes, allowed are 1,000",
    "enqueue('echo', key => '')": "key is empty",
    "enqueue('')": "the name of a task is empty",
    "enqueue(NULL)": "the name of a task is empty",
    "enqueue(repeat('x', 300))": "task has 300 characters, allowed are 200",
    "enqueue('echo', queue => '')": "the name of a queue is empty",
    "enqueue('echo', queue => repeat('x', 300))": "queue has 300 characters",
    "enqueue('echo', pin => repeat('x', 300))": "the name of a node has 300 characters",
    "enqueue('echo', priority => 99999)": "priority 99999 is not between",
    "enqueue('echo', max_retries => -1)": "max_retries is -1, allowed is 0 to 32767",
    "enqueue('echo', max_retries => 99999)": "max_retries is 99999",
    "enqueue('echo', '[1]')": "is not a JSON object of its arguments",
    "enqueue('echo', NULL)": "is not a JSON object of its arguments",
    "enqueue('echo', '{\"value\": 1e400}')": "the payload of echo has the number 1000000000",
    "enqueue('echo', '{\"value\": 1e-400}')": "the payload of echo has the number 0.0000",
    "enqueue('echo', '{\"value\": 18446744073709551616}')": "has the number 18446744073709551616, which is read with less digits",
    "enqueue('echo', '{\"value\": 0.12345678901234567890}')": "has the number 0.12345678901234567890",
    "enqueue('echo', '{\"value\": 12345678901234567.5}')": "has the number 12345678901234567.5",
    f"enqueue('echo', '{_nested(202)}')": "is nested more than 200 levels deep",
    f"enqueue('echo', '{_nested(1100)}')": "is nested more than 200 levels deep",
    "enqueue('echo', jsonb_build_object('value', repeat('x', 1000000)))": "has 1,000,012 bytes, the limit is 1,000,000: store",
    "enqueue('narrow', jsonb_build_object('value', repeat('é', 501)), delay => '1 h')": "its limit counts has 1002 bytes, allowed",
    "enqueue('narrow', jsonb_build_object('value', repeat('é', 501)))": "its limit counts has 1002 bytes",
    "enqueue_many('narrow', ARRAY[jsonb_build_object('value', repeat('é', 501))::text])": "its limit counts has 1002 bytes",
    "enqueue_many('echo', '{\"[1]\"}')": "is not a JSON object of its arguments",
    "enqueue_many('echo', '{NULL}')": "is not a JSON object of its arguments",
    "enqueue_many('echo', ARRAY['{\"value\": 1e400}'])": "has the number 1000000",
    f"enqueue_many('echo', ARRAY['{_nested(1100)}'])": "is nested more than 200 levels deep",
    "enqueue_many('echo', ARRAY[jsonb_build_object('value', repeat('x', 1000000))::text])": "has 1,000,012 bytes",
    "enqueue_many('echo', '{}', run_at => 'infinity')": "run_at is infinity",
    "enqueue_many('echo', '{}', deadline => 'infinity')": "deadline is infinity",
    "enqueue_many('echo', '{}', max_retries => -1)": "max_retries is -1",
    "enqueue_many('echo', '{}', queue => '')": "the name of a queue is empty",
    "change(%(job)s, a_run_at => 'infinity')": "run_at is infinity",
    "change(%(job)s, '[1]')": "is not a JSON object",
    "change(%(job)s, '{\"value\": 1e400}')": "has the number 1000000",
    "change(%(job)s, a_max_retries => -1)": "max_retries is -1",
    "signal(%(job)s, '')": "the name of an event has 0 characters",
    "signal(%(job)s, repeat('x', 300))": "the name of an event has 300 characters",
    "signal(%(job)s, 'approved', '1e400')": "the payload of approved has the number 1000000",
}
TAKEN = [
    "enqueue('echo', '{\"value\": 18446744073709551615, \"least\": -9223372036854775808}')",
    'enqueue(\'echo\', \'{"value": 0.12345678901234566, "big": 1e300, "small": 5e-324, "text": "123456789012345678901234567890"}\')',
    f"enqueue('echo', '{_nested(200)}')",
    "enqueue('echo', run_at => '0001-01-02 00:00:00Z', deadline => '9998-12-31 23:59:59Z')",
    "enqueue('echo', jsonb_build_object('value', repeat('x', 999988)))",
    "enqueue('echo', key => repeat('x', 1000), queue => repeat('é', 200), pin => repeat('x', 200), max_retries => 0)",
    "enqueue_many('echo', ARRAY[' {\"value\": 1e5}', '{\"value\": \"1e400\"}'])",
]


@pytest.fixture
async def job(queue: Queue, db: DB) -> int:
    """A queued one, beside a task whose limit counts by an argument."""
    await db.execute(
        "INSERT INTO workerd.task (name, queue, priority, max_retries, limit_key) VALUES ('narrow', 'default', 0, 3, 'value')"
    )
    await limits.put(db, "key", "narrow", Limit(concurrency=1))
    return await queue.enqueue("echo", {"value": 1}, key="a")


async def _said(db: DB, call: str) -> str:
    try:
        await db.execute(f"SELECT workerd.{call}")
    except asyncpg.PostgresError as error:
        return str(error)
    return "taken"


async def test_sql_refuses_what_no_daemon_could_run(db: DB, job: int) -> None:
    told = {call: await _said(db, call.replace("%(job)s", str(job))) for call in SQL}
    assert {call: said for call, said in told.items() if SQL[call] not in said or "\n" in said} == {}
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 1


async def test_sql_takes_all_that_lies_within_the_bounds(db: DB, job: int) -> None:
    told = {call: await _said(db, call) for call in TAKEN}
    assert {call: said for call, said in told.items() if said != "taken"} == {}


PYTHON: list[tuple[dict[str, Any], str]] = [
    ({"deadline": END}, "deadline is 9999-12-31"),
    ({"run_at": END}, "run_at is 9999-12-31"),
    ({"run_at": "2030-01-01"}, "run_at is '2030-01-01', allowed is a datetime"),
    ({"delay": math.inf}, "delay inf is not a duration"),
    ({"delay": math.nan}, "delay nan is not a duration"),
    ({"delay": 1e18}, "delay 1e+18 is not a duration"),
    ({"delay": -1}, "delay -1 is not a duration"),
    ({"delay": [1]}, "delay [1] is not a duration"),
    ({"deadline": object}, "is not a duration"),
    ({"key": "é" * 501}, "key has 1,002 bytes, allowed are 1,000"),
    ({"key": ""}, "key is empty"),
    ({"key": 5}, "key is 5, allowed is a text"),
    ({"queue": ""}, "queue is ''"),
    ({"queue": LONG}, "queue has 300 characters, allowed are 200"),
    ({"queue": 5}, "queue is 5, allowed is a text"),
    ({"queue": "a\0b"}, "none of them a control character"),
    ({"queue": "a\x0bb"}, "none of them a control character"),
    ({"priority": 1.5}, "priority is 1.5, allowed is a whole number from -32768 to 32767"),
    ({"priority": 99999}, "priority is 99999"),
    ({"max_retries": -1}, "max_retries is -1, allowed is a whole number from 0 to 32767"),
    ({"max_retries": "3"}, "max_retries is '3'"),
    ({"pin": LONG}, "has 300 characters"),
    ({"after": 5}, "allowed is a list of ids"),
    ({"after": [2**63]}, "allowed is a list of ids"),
    ({"payload": {"value": math.nan}}, "the payload of echo is not JSON: it holds NaN or an infinity"),
    ({"payload": {"value": [None, -math.inf]}}, "it holds NaN or an infinity"),
    ({"payload": {"value": 2**64}}, "Integer exceeds 64-bit range"),
    ({"payload": {"value": {1: "a", "1": "b"}}}, "two keys of a dict are both written '1'"),
    ({"payload": [1]}, "the payload of echo is a list, allowed is a dict of its arguments"),
    ({"payload": "value"}, "the payload of echo is a str"),
    ({"payload": 0}, "the payload of echo is a int"),
    ({"payload": DEEP}, "is nested more than 200 levels deep"),
    ({"payload": {"value": json.loads("[" * 900 + "]" * 900)}}, "is nested more than 200 levels deep"),
    ({"payload": {"value": "x" * 1_000_000}}, "has 1,000,012 bytes, the limit is 1,000,000: store the data elsewhere"),
]


async def test_python_refuses_it_before_the_database_is_asked(queue: Queue, db: DB) -> None:
    told = {}
    for number, (options, said) in enumerate(PYTHON):
        payload = options.get("payload", {"value": 1})
        given = {name: value for name, value in options.items() if name != "payload"}
        for many in (False, True) if "key" not in given else (False,):
            try:
                way = (
                    queue.enqueue_many("echo", [payload], **given) if many else queue.enqueue("echo", payload, **given)
                )
                told[number, many] = (str(await way), said)
            except TaskError as error:
                if said not in str(error) or "\n" in str(error):
                    told[number, many] = (str(error), said)
    assert told == {}
    with pytest.raises(TaskError, match="task has 300 characters"):
        await queue.enqueue(LONG)
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 0


async def test_the_limit_of_a_payload_is_the_same_one_whatever_the_way(queue: Queue, db: DB) -> None:
    """It counts the bytes of the compact text: what PostgreSQL writes between the parts is its own."""
    numbers = {"value": [1] * 499_994}
    size = len(json.dumps(numbers, separators=(",", ":")))
    assert 999_990 < size <= 1_000_000
    await queue.enqueue("echo", numbers)
    await queue.enqueue("echo", numbers, key="a")
    await queue.enqueue_many("echo", [numbers])
    text = json.dumps(numbers)
    await db.execute("SELECT workerd.enqueue('echo', $1::jsonb), workerd.enqueue_many('echo', ARRAY[$1::text])", text)
    more = {"value": [1] * 500_000}
    with pytest.raises(PayloadError, match="has 1,000,011 bytes, the limit is 1,000,000"):
        await queue.enqueue("echo", more)
    with pytest.raises(asyncpg.InvalidParameterValueError, match="has 1,000,011 bytes, the limit is 1,000,000"):
        await db.execute("SELECT workerd.enqueue('echo', $1::jsonb)", json.dumps(more))


DECLARATIONS: list[tuple[Any, str]] = [
    (lambda: schedule(at=END), "at is 9999-12-31"),
    (lambda: schedule(at=datetime(2030, 1, 1)), "at has no time zone"),  # noqa: DTZ001
    (lambda: schedule(every="1h", queue=""), "queue is ''"),
    (lambda: schedule(every="1h", name=LONG), "name has 300 characters"),
    (lambda: schedule(every="1h", priority=1.5), "priority is 1.5"),  # type: ignore[arg-type]
    (lambda: schedule(every=math.inf), "inf is not a duration"),
    (lambda: task(queue="")(len), "queue is ''"),
    (lambda: task(queue=LONG)(len), "queue has 300 characters"),
    (lambda: task(name="")(len), "the name of a task is ''"),
    (lambda: task(name=LONG)(len), "the name of a task has 300 characters"),
    (lambda: task(priority=1.5)(len), "priority is 1.5"),  # type: ignore[call-overload]
    (lambda: task(priority=99999)(len), "priority is 99999"),
    (lambda: task(retry=-1)(len), "max is -1"),
    (lambda: task(concurrency=1.5)(len), "concurrency is 1.5"),  # type: ignore[call-overload]
    (lambda: task(timeout=math.nan)(len), "timeout nan is not a duration"),
    (lambda: task(result_ttl=[1])(len), "result_ttl [1] is not a duration"),  # type: ignore[call-overload]
]


def test_declarations_are_refused_with_one_line() -> None:
    before = dict(registry)
    told = {}
    for number, (declare, said) in enumerate(DECLARATIONS):
        try:
            told[number] = (repr(declare()), said)
        except TaskError as error:
            if said not in str(error) or "\n" in str(error):
                told[number] = (str(error), said)
    assert (told, registry) == ({}, before)


@pytest.mark.parametrize("control", [RetryAfter, Snooze])
def test_a_delay_that_is_none_is_refused_where_it_is_raised(control: type[RetryAfter]) -> None:
    for delay in ("soon", math.inf, math.nan, -1, 1e18, None, [1], 10**400):
        with pytest.raises(ValueError, match="is not a duration"):
            control(delay)  # type: ignore[arg-type]


BODIES: list[tuple[str, str]] = [
    ('{"task": "echo", "deadline": "9999-12-31T23:59:59Z"}', "deadline is 9999-12-31"),
    ('{"task": "echo", "run_at": "9999-12-31T23:59:59Z"}', "run_at is 9999-12-31"),
    ('{"task": "echo", "run_at": "2030-01-01T00:00:00"}', "run_at has no time zone"),
    ('{"task": "echo", "delay": 1e18}', "delay"),
    ('{"task": "echo", "delay": NaN}', "not JSON"),
    ('{"task": "echo", "key": "' + "é" * 501 + '"}', "key has 1,002 bytes"),
    ('{"task": "echo", "queue": ""}', "queue"),
    ('{"task": "' + LONG + '"}', "task has 300 characters"),
    ('{"task": "echo", "queue": "' + LONG + '"}', "queue has 300 characters"),
    ('{"task": "echo", "priority": 1.5}', "priority"),
    ('{"task": "echo", "max_retries": -1}', "max_retries"),
    ('{"task": "echo", "payload": {"value": NaN}}', "not JSON"),
    ('{"task": "echo", "payload": {"value": 1e400}}', "not JSON"),
    ('{"task": "echo", "payload": {"value": 18446744073709551616}}', "has the number 18446744073709551616"),
    ('{"task": "echo", "payload": {"value": 0.12345678901234567890}}', "has the number 0.12345678901234567890"),
    ('{"task": "echo", "payload": ' + _nested(1100) + "}", "depth limit"),
    ('{"task": "echo", "payload": ' + _nested(300) + "}", "is nested more than 200 levels deep"),
    (
        '{"task": "echo", "payload": {"value": "' + "x" * 1_000_000 + '"}}',
        "has 1,000,012 bytes, the limit is 1,000,000",
    ),
]


@pytest.fixture
async def http(queue: Queue, db: DB) -> AsyncIterator[httpx.AsyncClient]:
    token = await tokens.create(db, "all", list(tokens.SCOPES))
    transport = httpx.ASGITransport(create_app(queue), raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://manager/api/v1", headers={"Authorization": f"Bearer {token}"}
    ) as client:
        yield client


async def test_http_refuses_it_with_one_line(http: httpx.AsyncClient, db: DB) -> None:
    told = {}
    for number, (body, said) in enumerate(BODIES):
        answer = await http.post("/jobs", content=body, headers={"Content-Type": "application/json"})
        detail = answer.json().get("detail", "")
        if answer.status_code != 422 or said not in detail or "\n" in detail:
            told[number] = (answer.status_code, detail[:200], said)
    assert told == {}
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 0


STEPS = {
    "NaN": "is not JSON",
    "": "is not JSON",
    '"\\ud800"': "is not JSON",
    '"\\u0000"': "a NUL character",
    "1e400": "is not JSON",
    "18446744073709551616": "has the number 18446744073709551616",
    "[" * 300 + "]" * 300: "is nested more than 200 levels deep",
    "[" * 100_000 + "]" * 100_000: "is not JSON",
    '"' + "x" * 1_000_000 + '"': "has 1,000,002 bytes, the limit is 1,000,000",
}


async def test_http_refuses_the_result_of_a_step_with_one_line(http: httpx.AsyncClient, queue: Queue) -> None:
    entered = await http.post("/nodes", json={"name": "edge", "tasks": [{"name": "echo"}], "heartbeat": 3600})
    job, node = await queue.enqueue("echo"), f"/nodes/{entered.json()['id']}"
    claimed = (await http.post(f"{node}/claim", json={"batch": 1})).json()
    held = {"n": claimed["n"], "pos": claimed["jobs"][0]["pos"], "id": job, "name": "charge"}
    told = {}
    for result, said in STEPS.items():
        answer = await http.post(f"{node}/jobs/{job}/steps", json={**held, "result": result})
        detail = answer.json().get("detail", "")
        if answer.status_code != 422 or said not in detail or "\n" in detail:
            told[result[:40]] = (answer.status_code, detail[:200], said)
    assert told == {}
    kept = await http.post(f"{node}/jobs/{job}/steps", json={**held, "result": '{"receipt": 1}'})
    assert kept.json() == {"result": '{"receipt": 1}'}


COMMANDS: list[tuple[tuple[str, ...], str]] = [
    (("enqueue", "echo", '{"value": 18446744073709551616}'), "has the number 18446744073709551616"),
    (("enqueue", "echo", '{"value": 1e400}'), "not JSON"),
    (("enqueue", "echo", '{"value": NaN}'), "not JSON"),
    (("enqueue", "echo", _nested(300)), "is nested more than 200 levels deep"),
    (("enqueue", "echo", "--run-at", "9999-12-31T23:59:59Z"), "run_at is 9999-12-31"),
    (("enqueue", "echo", "--queue", ""), "queue is ''"),
    (("enqueue", "echo", "--key", "é" * 501), "key has 1,002 bytes"),
    (("jobs", "signal", "1", "approved", "0.12345678901234567890"), "has the number 0.12345678901234567890"),
]


async def test_the_command_line_refuses_it_with_one_line(ctl: Ctl, db: DB) -> None:
    told = {}
    for words, said in COMMANDS:
        done = ctl(*words)
        if done.returncode != 2 or said not in done.stderr or done.stderr.count("\n") != 1:
            told[words] = (done.returncode, done.stderr, said)
    assert told == {}
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 0


# transactions older than a claim


MOVES = {
    "enqueue('echo', key => 'a', conflict => 'replace')": "conflict replace needs READ COMMITTED",
    "enqueue('echo', key => 'a', conflict => 'reschedule', delay => '5 min')": "conflict reschedule needs READ COMMITTED",
    "change(%(job)s, a_run_at => now() + interval '1 h')": "a change of a job needs READ COMMITTED",
    "cancel(%(job)s, 60)": "a cancellation needs READ COMMITTED",
    "hold_back(1, 0, 10)": "to hold jobs back needs READ COMMITTED",
    "move_queued(1, 2, now(), NULL, 10)": "a move of jobs needs READ COMMITTED",
}


@pytest.mark.parametrize("level", ["repeatable_read", "serializable"])
async def test_a_transaction_older_than_a_claim_moves_no_running_job(dsn: str, db: DB, job: int, level: Any) -> None:
    await db.execute(
        """INSERT INTO workerd.node (id, name, pid, version, locked, tasks, queues, workers)
        VALUES (7, 'here', 1, '1', false, '{echo}', '{}', 1)"""
    )
    told = {}
    for number, (call, said) in enumerate(MOVES.items()):
        old = await asyncpg.connect(dsn)
        transaction = old.transaction(isolation=level)
        await transaction.start()
        await old.fetch("SELECT 1 FROM pg_class LIMIT 1")
        if number == 0:
            wanted = Wanted(1, [(lane, BEGINNING) for lane in await lanes(db, [])], 10, ["echo"], True, True, 2)
            assert [each.id for each in (await claim(db, 7, wanted)).jobs] == [job]
        answer = await _said(old, call.replace("%(job)s", str(job)))
        if said not in answer or "BEGIN ISOLATION LEVEL READ COMMITTED" not in answer:
            told[call] = answer
        await transaction.rollback()
        await old.close()
    assert told == {}
    assert await db.fetchval("SELECT state FROM workerd.job WHERE id = $1", job) == "running"


async def test_other_enqueues_work_at_every_level(dsn: str, queue: Queue, db: DB, job: int) -> None:
    connection = await asyncpg.connect(dsn)
    for level in ("repeatable_read", "serializable"):
        async with connection.transaction(isolation=level):
            assert await queue.enqueue("echo", connection=connection)
            assert await queue.enqueue("echo", key="a", connection=connection) == job
            assert await queue.enqueue("echo", key=level, delay=60, connection=connection)
            assert len(await queue.enqueue_many("echo", [{}] * 3, connection=connection)) == 3
    with pytest.raises(TaskError, match="needs READ COMMITTED"):
        async with connection.transaction(isolation="serializable"):
            await queue.enqueue("echo", key="a", conflict="replace", connection=connection)
    await connection.close()
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 11


# databases that cannot hold every text


async def test_a_database_of_another_encoding_is_refused_with_one_line(server: str, ctl: Ctl) -> None:
    admin = await asyncpg.connect(server)
    parts = urlsplit(server)
    told = {}
    for encoding in ("LATIN1", "WIN1252", "SQL_ASCII"):
        name = f"doors_{encoding.lower()}"
        await admin.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        address = urlunsplit(parts._replace(path=f"/{name}"))
        try:
            if encoding == "SQL_ASCII":
                connection = await asyncpg.connect(address)
                await migrate.upgrade(connection)
                await connection.close()
                continue
            for words in (("db", "upgrade"), ("check",), ("start",), ("enqueue", "echo")):
                done = ctl(*words, DATABASE_URL=address)
                said = done.stdout + done.stderr
                if done.returncode == 0 or f"encoding of the database is {encoding}" not in said or "Traceback" in said:
                    told[encoding, words] = (done.returncode, said)
        finally:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()
    assert told == {}
    with pytest.raises(SchemaError, match="ENCODING 'UTF8'"):
        migrate.refuse_encoding("EUC_JP")


# what lies in the tables already


PLANTS = [
    "INSERT INTO workerd.scheduled (id, lane, run_at, task, payload) VALUES (100{number}, 1, '{moment}', 'echo', '{{}}')",
    "INSERT INTO workerd.ready (id, lane, queued_at, task, payload) VALUES (200{number}, 1, '{moment}', 'echo', '{{}}')",
    """INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, node, enqueued_at, queued_at, started_at, task,
        payload, error)
    SELECT 300{number}, min(day), 1, 'failed', 1, 1, 0, 7, '{moment}', '{moment}', now(), 'echo', '{{}}', 'why' FROM workerd.history_day""",
    """INSERT INTO workerd.schedule (name, task, payload, kind, rule, tz, catch_up, next_at, last_at, paused_at)
    VALUES ('s{number}', 'echo', '{{}}', 'every', '1h', 'UTC', 'last', '{moment}', '{moment}', NULL),
        ('p{number}', 'echo', '{{}}', 'at', '{moment}', 'UTC', 'last', '{moment}', '{moment}', now())""",
]
PLANTED = ["infinity", "-infinity", "4713-01-01 BC", "20000-01-01", "9999-12-31 23:59:59.999999Z"]


async def test_times_beyond_every_calendar_are_shown_as_they_are(
    ctl: Ctl, http: httpx.AsyncClient, queue: Queue, db: DB
) -> None:
    await queue.enqueue("echo", {"value": 1})
    for number, moment in enumerate(PLANTED):
        for plant in PLANTS:
            await db.execute(plant.format(number=number, moment=moment))
    await db.execute("UPDATE workerd.ready SET payload = $1 WHERE id = 2000", _nested(1100))
    told = {}
    commands = [
        ("jobs", "list"),
        ("jobs", "list", "--json"),
        ("jobs", "show", "1000"),
        ("jobs", "show", "2000"),
        ("jobs", "show", "3001", "--json"),
        ("schedules", "list"),
        ("schedules", "list", "--json"),
        ("stats",),
        ("stats", "--json"),
        ("queues", "list"),
        ("nodes", "list"),
    ]
    for words in commands:
        done = ctl(*words)
        if done.returncode != 0 or "Traceback" in done.stderr:
            told[words] = (done.returncode, done.stderr[-600:])
    assert "infinity" in ctl("jobs", "list").stdout
    for path in ("/jobs", "/jobs/1000", "/jobs/2000", "/jobs/3002", "/schedules", "/stats", "/queues", "/nodes"):
        answer = await http.get(path)
        if answer.status_code != 200:
            told[path,] = (answer.status_code, answer.text[:600])
    done = ctl("doctor")
    if "Traceback" in done.stderr + done.stdout:
        told["doctor",] = (done.returncode, done.stderr[-600:])
    assert told == {}
