"""The commands of README.md and of the pages of the documentation run as they stand there."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.examples import Block, blocks, examples
from tests.manager_process import free_port
from tests.shell import Shell
from tests.support import ROOT, psql, until, until_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import asyncpg

    from tests.manager_process import ManagerProcess
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]

HANDLERS = {"TASKS": "tests.handlers", "APP_DIR": str(ROOT)}


@pytest.fixture
def shell(dsn: str, tmp_path: Path) -> Iterator[Shell]:
    """In an empty directory, on the test's database; what was started there is stopped."""
    home = tmp_path / "project"
    home.mkdir()
    places = {"STATE_DIR": "state", "RUNTIME_DIR": "run", "LOG_DIR": "log"}
    opened = Shell(home, {"DATABASE_URL": dsn, **{name: str(tmp_path / place) for name, place in places.items()}})
    yield opened
    opened.stop()


def _of(page: str, language: str) -> list[Block]:
    return [block for block in blocks(ROOT / "docs" / page) if block.language == language]


def lines(page: str, place: int) -> list[str]:
    return examples(page, "sh")[place].splitlines()


async def test_readme(shell: Shell) -> None:
    found = [block for block in blocks(ROOT / "README.md") if block.run]
    assert [block.language for block in found] == ["python", "console"]
    tasks, commands = (block.text for block in found)
    (shell.directory / "tasks.py").write_text(tasks)
    said = await asyncio.to_thread(shell, commands)
    assert "\n1\n" in said
    assert "Hello Ada" in said


async def test_first_steps(tmp_path: Path, dsn: str) -> None:
    """On an embedded PostgreSQL that has the jobs of the README already, then on another database."""
    runtime = str(tmp_path / "run")
    shell = Shell(
        tmp_path, {"STATE_DIR": str(tmp_path / "state"), "RUNTIME_DIR": runtime, "LOG_DIR": str(tmp_path / "log")}
    )
    init, start, look, change, wrong, own = (b.text for b in _of("first-steps.md", "sh") if b.run)
    task, script = (b.text for b in _of("first-steps.md", "python"))
    try:
        tasks, quick_start = (block.text for block in blocks(ROOT / "README.md") if block.run)
        (tmp_path / "tasks.py").write_text(tasks)
        await asyncio.to_thread(shell, quick_start)
        (tmp_path / "tasks.py").unlink()
        assert task in await asyncio.to_thread(shell, init)
        await asyncio.to_thread(shell, start)
        assert "Hello Ada" in await asyncio.to_thread(shell, look)
        (tmp_path / "greet.py").write_text(script)
        assert await asyncio.to_thread(shell, "python greet.py") == "Hello Grace\n"
        assert "3.0" in await asyncio.to_thread(shell, change)
        said = await asyncio.to_thread(shell, wrong)
        assert "refused" in said
        assert "ZeroDivisionError" in said
        assert said.endswith("0.0\n")
        await asyncio.to_thread(shell, own.replace("postgresql://app:secret@db.example/shop", dsn))
    finally:
        shell.stop()


async def test_backup(shell: Shell, empty_dsn: str, tmp_path: Path) -> None:
    keep, to, restore = lines("backup.md", 0)
    shell(keep)
    shell(to.replace("/var/backups/workerd", str(tmp_path / "backups")))
    (made,) = (tmp_path / "backups").iterdir()
    shutil.copy(made, shell.directory / restore.split()[3])
    shell(restore, DATABASE_URL=empty_dsn)


async def test_database(dsn: str, db: DB) -> None:
    done = psql(dsn, f"\\set ON_ERROR_STOP 1\n{examples('database.md', 'sql')[0]}")
    assert done.returncode == 0, done.stderr
    assert await db.fetchval("SELECT count(*) FROM workerd.task_queue WHERE task_type = 'ocr_extract'") == 1


async def test_invoices(shell: Shell) -> None:
    """What needs no package index."""
    (enqueue,) = (
        block.text for block in blocks(ROOT / "docs/invoices.md") if block.run and __file__.endswith(block.run)
    )
    mail = ROOT / "daemon/invoices/samples/1-ubl.eml"
    await asyncio.to_thread(shell, "workerctl start --tasks invoices")
    job = await asyncio.to_thread(shell, enqueue.replace("/var/mail/in/4711.eml", str(mail)))
    assert "jobs" in await asyncio.to_thread(shell, f"workerctl jobs wait {job}")


async def test_logs(shell: Shell, queue: Queue, db: DB) -> None:
    await asyncio.to_thread(shell, "workerctl start", **HANDLERS)
    job = await queue.enqueue("clumsy", {"tenant": "a"}, max_retries=0)
    await until_state(db, job, "failed")
    last, follow, one = lines("logs.md", 0)
    errors, fitting, retry = lines("logs.md", 1)
    assert await asyncio.to_thread(shell, last)
    await asyncio.to_thread(shell.endless, follow.partition("#")[0], "stumbles")
    await asyncio.to_thread(shell, one.replace("42", str(job)))
    await asyncio.to_thread(shell, errors)
    fingerprint = await db.fetchval("SELECT fingerprint FROM workerd.history WHERE id = $1", job)
    for command in (fitting, retry):
        assert "1" in await asyncio.to_thread(shell, command.replace("3f1c9a0b7d21", fingerprint))


async def test_manager(shell: Shell) -> None:
    script = examples("manager.md", "sh")[0].replace("8000", str(free_port()))
    assert '"jobs":[]' in await asyncio.to_thread(shell, f"trap 'kill %1' EXIT\n{script}")


async def test_remote(shell: Shell, manager: ManagerProcess, db: DB, tmp_path: Path) -> None:
    create, start = lines("remote.md", 0)
    token = (await asyncio.to_thread(shell, create)).split()[-1]
    here = start.replace("https://manager.example:8000", manager.url).replace("wkd_…", token)
    await asyncio.to_thread(shell, here, **HANDLERS)
    assert await db.fetchval("SELECT transport FROM workerd.node WHERE dead_at IS NULL AND workers = 4") == "http"


async def test_operations(shell: Shell, db: DB) -> None:
    await asyncio.to_thread(shell, examples("operations.md", "sh")[0], **HANDLERS)
    await asyncio.to_thread(shell, "workerctl start", **HANDLERS, NODE_NAME="web-1")
    await asyncio.to_thread(shell, examples("operations.md", "sh")[2], **HANDLERS, NODE_NAME="web-1")
    *orders, forget = lines("operations.md", 1)
    for order in orders:
        await asyncio.to_thread(shell, order)
    gone = "SELECT bool_and(dead_at IS NOT NULL) FROM workerd.node WHERE name = 'web-1'"
    await until(lambda: db.fetchval(gone), "the drained node has left")
    await asyncio.to_thread(shell, forget)


async def test_deploying(shell: Shell, db: DB) -> None:
    blue = {**HANDLERS, "NODE_NAME": "blue"}
    await asyncio.to_thread(shell, "workerctl start", **blue)
    await asyncio.to_thread(shell, examples("deploying.md", "sh")[0], **blue)
    assert "green" in await asyncio.to_thread(shell, examples("deploying.md", "sh")[1], **HANDLERS)


async def test_tuning(shell: Shell) -> None:
    await asyncio.to_thread(shell, f"workerctl start\n{examples('tuning.md', 'sh')[0]}", **HANDLERS)


async def test_roles(shell: Shell, db: DB) -> None:
    try:
        await asyncio.to_thread(shell, examples("roles.md", "sh")[0])
        made = await db.fetchval("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'workerd\\_%'")
        assert made == 4
    finally:
        for role in ("enqueue", "work", "operate", "read"):
            await db.execute(f"DROP OWNED BY workerd_{role}; DROP ROLE workerd_{role}")


async def test_steps(shell: Shell, queue: Queue, dsn: str) -> None:
    by_sql, by_command = [await queue.enqueue("fulfil") for _ in range(2)]
    done = psql(dsn, f"\\set ON_ERROR_STOP 1\n{examples('steps.md', 'sql')[0].replace('42', str(by_sql))}")
    assert done.returncode == 0, done.stderr
    await asyncio.to_thread(shell, examples("steps.md", "sh")[0].replace("42", str(by_command)))
