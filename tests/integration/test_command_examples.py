"""The example that each command of workerctl shows runs as it stands there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.manager_process import free_port
from tests.reference.commands import commands
from tests.shell import Shell
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    import asyncpg

    from workerd import Queue
    from workerd.job import AnyConnection

    DB = asyncpg.Connection[asyncpg.Record]

EXAMPLES = {command.words: command.example for command in commands()}
NOT_RUN = {
    "top": "needs a terminal; tests/system/terminal runs it on one",
    "bench": "takes minutes; tests/integration/test_bench.py runs a small one",
    "install": "needs root; tests/system/systemd installs it",
    "uninstall": "needs root; tests/system/systemd does it",
}
BEFORE = ("init", "config", "db upgrade", "db status", "check", "doctor", "db reindex", "db roles")
FIRST = ("start", "status", "health", "scale", "enqueue")
OF_JOBS = (
    "jobs show",
    "jobs edit",
    "jobs list",
    "jobs errors",
    "jobs retry",
    "jobs wait",
    "jobs signal",
    "jobs cancel",
    "jobs delete",
    "stats",
)
OF_THE_REST = (
    "limits set",
    "limits list",
    "limits clear",
    "schedules set",
    "schedules list",
    "schedules pause",
    "schedules resume",
    "schedules run",
    "schedules remove",
    "queues ageing",
    "queues pause",
    "queues resume",
    "queues list",
    "tokens create",
    "tokens list",
    "tokens revoke",
)
LAST = (
    "reload",
    "nodes list",
    "nodes scale",
    "db backup",
    "nodes drain",
    "nodes forget",
    "restart",
    "stop",
    "db restore",
)
ENDLESS = {  # what shows that they are at work
    "logs": "written before",
    "follow": "written before",
    "run": "queues: all",
    "dev": "queues: all",
    "manager": "http://",
}
TASKS = """
from pathlib import Path
from workerd import task

@task(queue="ocr", retry=0)
def ocr_extract(path: str) -> int:
    return Path(path).stat().st_size

@task
def report() -> None: ...
"""


@pytest.fixture
async def shell(dsn: str, tmp_path: Path, db: DB) -> AsyncIterator[Shell]:
    """In a project with the tasks of the examples, on the node that they name."""
    home = tmp_path / "project"
    (home / "myapp").mkdir(parents=True)
    (home / "myapp" / "tasks.py").write_text(TASKS)
    places = {"STATE_DIR": "state", "RUNTIME_DIR": "run", "LOG_DIR": "log"}
    settings = {"DATABASE_URL": dsn, "TASKS": "myapp.tasks", "NODE_NAME": "web-1", "HEARTBEAT_INTERVAL": "0.5"}
    opened = Shell(home, settings | {name: str(tmp_path / place) for name, place in places.items()})
    yield opened
    await asyncio.to_thread(opened.stop)
    for role in ("enqueue", "work", "operate", "read"):
        if await db.fetchval("SELECT to_regrole($1) IS NOT NULL", f"shop_{role}"):
            await db.execute(f"DROP OWNED BY shop_{role}; DROP ROLE shop_{role}")


def test_every_example_is_run_or_says_why_not() -> None:
    assert {*BEFORE, *FIRST, *OF_JOBS, *OF_THE_REST, *LAST, *ENDLESS, *NOT_RUN} >= EXAMPLES.keys()
    assert all(EXAMPLES.values())


async def test_examples_before_the_first_start(shell: Shell, db: DB) -> None:
    await in_order(BEFORE, shell, db)


async def test_examples_beside_a_daemon(shell: Shell, db: DB, queue: Queue) -> None:
    await in_order(FIRST, shell, db)
    async with queue.connection() as other:
        await asyncio.gather(in_order(OF_JOBS, shell, db), in_order(OF_THE_REST, shell, other))
    await in_order(LAST, shell, db)


async def in_order(which: Sequence[str], shell: Shell, db: AnyConnection) -> None:
    for words in which:
        example = EXAMPLES[words]
        if words in MAKING:
            example = await MAKING[words](shell, db, example)
        await asyncio.to_thread(shell, example)


@pytest.mark.parametrize("words", ENDLESS)
async def test_examples_that_go_on(shell: Shell, words: str, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    for name in ("worker.log", "worker.error.log"):
        (tmp_path / "log" / name).write_text("written before\n")
    example = EXAMPLES[words].replace("8000", str(free_port()))
    await asyncio.to_thread(shell.endless, example, ENDLESS[words])


async def _waiting(shell: Shell, db: AnyConnection, example: str) -> str:
    """For jobs 42 and 43: two that wait."""
    waits = "SELECT workerd.enqueue('ocr_extract', '{\"path\": \"b.pdf\"}', delay => '1 h')::text"
    return example.replace("42", await db.fetchval(waits)).replace("43", await db.fetchval(waits))


async def _failed(shell: Shell, db: AnyConnection, example: str) -> str:
    """For those that failed: the file is not there; and nobody is there to be asked."""
    job = await db.fetchval("SELECT workerd.enqueue('ocr_extract', '{\"path\": \"none.pdf\"}')")
    failed = "SELECT count(*) = 1 FROM workerd.job WHERE id = $1 AND state = 'failed'"
    await until(lambda: db.fetchval(failed, job), "it has failed")
    return f"{example} --yes"


async def _done(shell: Shell, db: AnyConnection, example: str) -> str:
    """For a job 42 that succeeds."""
    (shell.directory / "a.pdf").touch()
    return example.replace(
        "42", str(await db.fetchval("SELECT workerd.enqueue('ocr_extract', '{\"path\": \"a.pdf\"}')"))
    )


async def _gone(shell: Shell, db: AnyConnection, example: str) -> str:
    """For a node that has been drained."""
    await until(lambda: db.fetchval("SELECT bool_and(dead_at IS NOT NULL) FROM workerd.node"), "the node has left")
    return example


async def _into(shell: Shell, db: AnyConnection, example: str) -> str:
    """For a directory that this test may write."""
    return example.replace("/var/backups/workerd", str(shell.directory / "backups"))


async def _from(shell: Shell, db: AnyConnection, example: str) -> str:
    """For a file of that name: the backup that was made."""
    (made,) = (shell.directory / "backups").iterdir()
    made.rename(shell.directory / example.split()[3])
    return example


MAKING = {
    "jobs show": _waiting,
    "jobs edit": _waiting,
    "jobs signal": _waiting,
    "jobs cancel": _waiting,
    "jobs retry": _failed,
    "jobs wait": _done,
    "nodes forget": _gone,
    "db backup": _into,
    "db restore": _from,
}
