"""Bad input gets one line that says what is wrong and what to do, a non-zero exit code, and nothing is changed."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from tests.support import Ctl

    DB = asyncpg.Connection[asyncpg.Record]

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


CASES = [
    (("enqueue", "no_such_task"), 2, "neither TASKS nor a living node knows the task no_such_task"),
    (("enqueue", "ecko"), 2, "did you mean echo?"),
    (("enqueue", "echo", "{not json"), 2, "not JSON"),
    (("enqueue", "echo", "Ada"), 2, "expected is a JSON object of the task's arguments, such as '{\"path\""),
    (("enqueue", "echo", "[1, 2]"), 2, "not a JSON object"),
    (("enqueue", "echo", '{"wrong": 1}'), 2, "unexpected keyword argument 'wrong'"),
    (("enqueue", "echo", "--delay", "soon"), 2, "not a duration"),
    (("enqueue", "echo", "--run-at", "soon"), 2, "no ISO time"),
    (("enqueue", "echo", "--priority", "99999"), 2, "priority"),
    (("enqueue", "echo", "--priority", "high"), 2, "--priority"),
    (("start", "0"), 2, "allowed is 1 to 10000"),
    (("start", "-1"), 2, "allowed is 1 to 10000"),
    (("start", "abc"), 2, "allowed is 1 to 10000"),
    (("start", "100000"), 2, "allowed is 1 to 10000"),
    (("scale", "0"), 2, "allowed is 1 to 10000"),
    (("scale", "-1"), 2, "allowed is 1 to 10000"),
    (("scale", "100000"), 2, "allowed is 1 to 10000"),
    (("start", "--frobnicate"), 2, "No such option: --frobnicate"),
    (("start", "--taks", "tasks"), 2, "No such option: --taks. Did you mean --tasks?"),
    (("start", "--worker", "3"), 2, "No such option: --worker. Did you mean --workers?"),
    (("restart", "--worker", "3"), 2, "Did you mean --workers?"),
    (("scale", "3", "--runtme", "local"), 2, "Did you mean --runtime?"),
    (("run", "--taks", "tasks"), 2, "Did you mean --tasks?"),
    (("dev", "--taks", "tasks"), 2, "Did you mean --tasks?"),
    (("install",), 2, "Missing argument 'TARGET': systemd, logrotate, supervisor, pm2, docker or kubernetes"),
    (("start", "--workers", "many"), 2, "WORKERS='many'"),
    (("start", "--poll-interval", "5000"), 2, "milliseconds?"),
    (("start", "--tasks", "no.such.module"), 1, "no module no.such.module"),
    (("start", "--database-url", NOWHERE), 1, "127.0.0.1:1/none cannot be reached"),
    (("start", "--database-url", "nonsense"), 1, "DATABASE_URL cannot be used"),
    (("start", "--database-url", "postgresql://h:port/db"), 1, "DATABASE_URL cannot be used"),
    (("start", "--runtime", "moon"), 2, "--runtime is 'moon'"),
    (("start", "--runtime-dir", "/proc/nowhere"), 2, "set RUNTIME_DIR"),
    (("start", "--log-dir", "/proc/nowhere"), 2, "set LOG_DIR"),
    (("start", "--config", "missing.env"), 2, "missing.env does not exist"),
    (("start", "--name", "../up"), 2, "NAME='../up'"),
    (("jobs", "list", "--state", "tired"), 2, "allowed are queued"),
    (("jobs", "show", "123456"), 1, "there is no job 123456"),
    (("logs", "--job", "123456"), 1, "there is no job 123456"),
    (("logs", "--job", "123456", "--errors", "--follow"), 1, "there is no job 123456"),
    (("db", "restore", "nofile.zip"), 1, "there is no file nofile.zip"),
    (("db", "restore", "/etc/passwd"), 1, "/etc/passwd is no backup of workerd"),
    (("jobs", "show"), 2, "give the job's id"),
    (("jobs", "show", "99999999999999999999999"), 1, "the database refused it"),
    (("jobs", "list", "--database-url", "postgresql://127.0.0.1:99999/x"), 1, "DATABASE_URL cannot be used"),
    (("jobs", "cancel"), 2, "give ids, or a filter"),
    (("jobs", "cancel", "123456"), 1, "there is no job 123456"),
    (("jobs", "wait", "123456"), 1, "there is no job 123456"),
    (("jobs", "wait", "abc"), 2, "Invalid value for 'ID'"),
    (("queues", "pause", "nothing"), 1, "there is no queue nothing"),
    (("stats", "--hours", "0"), 2, "--hours"),
    (("stats", "--database-url", NOWHERE), 1, "cannot be reached"),
    (("nonsense",), 2, "nonsense"),
    (("status", "--nonsense"), 2, "--nonsense"),
    (("stop", "--timeout", "x"), 2, "not a duration"),
]
STARTING = ("start", "restart", "run", "dev", "scale")


async def test_one_line_the_right_code_and_nothing_changed(ctl: Ctl, db: DB) -> None:
    wrong = {words: found for words, code, said in CASES if (found := await _wrong(ctl, db, words, code, said))}
    assert wrong == {}


async def _wrong(ctl: Ctl, db: DB, words: tuple[str, ...], code: int, said: str) -> list[object]:
    """What a command with bad input did otherwise than it should."""
    done = ctl(*words)
    lines = done.stderr.strip().splitlines()
    asked = {
        "the code": done.returncode == code,
        "one line": len(lines) == 1,
        "what it says": lines[:1] != [] and said in lines[0] and lines[0].startswith("workerctl: "),
        "silence otherwise": done.stdout == "" or words[0] == "jobs",
        "no job": await db.fetchval("SELECT count(*) FROM workerd.job") == 0,
        "no daemon": words[0] not in STARTING or ctl("status").returncode == 3,
    }
    return [what for what, holds in asked.items() if not holds] and [asked, done]


async def test_one_bad_line_among_many_enqueues_none(ctl: Ctl, db: DB) -> None:
    done = ctl("enqueue", "echo", "-", stdin='{"value": 1}\n{oops\n{"value": 2}\n')
    assert (done.returncode, "line 2 is not JSON" in done.stderr) == (2, True)
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 0


def test_a_manager_that_cannot_listen_says_where_and_why(ctl: Ctl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = ctl("manager", "--port", str(port))
    said = f"workerctl: the manager cannot listen on 127.0.0.1:{port}: address already in use (--port, MANAGER_PORT)\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    assert ctl("tokens", "create", "--scope", "read", "someone").returncode == 0
    done = ctl("manager", "--host", "192.0.2.1", "--port", str(port))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"cannot listen on 192.0.2.1:{port}: cannot assign requested address (--host, MANAGER_HOST)" in done.stderr


def test_a_socket_that_somebody_else_holds_is_left_alone(ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "run" / "worker.sock"))
        other.listen()
        done = ctl("start")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "another process listens on it" in done.stderr
    assert (tmp_path / "run" / "worker.sock").exists()


def test_a_newer_schema_is_refused(ctl: Ctl, dsn: str) -> None:
    import asyncio

    import asyncpg

    async def newer() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute("INSERT INTO workerd.migration (version, name) VALUES (9999, 'from the future')")
        await connection.close()

    asyncio.run(newer())
    for words in (("start",), ("enqueue", "echo"), ("db", "upgrade"), ("jobs", "list")):
        done = ctl(*words)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "schema version 9999" in done.stderr
        assert "upgrade workerd on this host" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_directory_is_named(ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    done = ctl("start", "--log-dir", str(tmp_path / "closed" / "log"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "set LOG_DIR" in done.stderr
