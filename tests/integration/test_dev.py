"""`workerctl dev` runs the code of now, and takes a debugger."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from watchfiles import Change

from tests.support import until, until_state
from tests.terminal import Terminal
from workerctl.dev.sources import Sources
from workerd.daemon.pidfile import owner
from workerd.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

    from tests.support import Ctl

TASKS = """
import asyncio
from workerd import task

@task
async def version() -> str:
    return "v1"

@task
async def long(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "v1"

@task(timeout=0.5)
async def held() -> int:
    seen = 42
    breakpoint()
    return seen

@task(timeout=0.5)
def held_in_thread() -> int:
    seen = 42
    breakpoint()
    return seen
"""


class Project:
    """A project of one module, and `workerctl dev` on a terminal."""

    def __init__(self, ctl: Ctl) -> None:
        self.ctl = ctl
        ctl.environment |= {"TASKS": "shop", "APP_DIR": str(ctl.directory), "STALL_LIMIT": "1"}
        self.module = ctl.directory / "shop.py"
        self.module.write_text(TASKS)
        self.terminal = Terminal(ctl, "dev")
        self.terminal.until("ready")

    def change(self, old: str, new: str) -> None:
        self.terminal.shown = ""
        self.module.write_text(self.module.read_text().replace(old, new))

    def daemon(self) -> int | None:
        """Its process, None while there is none."""
        return owner(Path(self.ctl.environment["RUNTIME_DIR"], "worker.pid"))

    async def processes(self) -> set[int]:
        """The daemon and the one that is to be the next; none while that one is missing."""
        found = {child.pid for child in psutil.Process(self.terminal.process.pid).children()}
        return found if len(found) > 1 else set()

    def enqueue(self, task: str, payload: str = "{}") -> int:
        job_id: int = self.ctl.json("enqueue", task, payload)["id"]
        return job_id


@pytest.fixture
def project(ctl: Ctl) -> Iterator[Project]:
    made = Project(ctl)
    yield made
    made.terminal.close()


async def test_new_code_runs_soon_after_the_change_and_no_job_is_lost(
    project: Project, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    job = project.enqueue("long", '{"seconds": 60}')
    await until_state(db, job, "running")
    for old, new in (("v1", "v2"), ("v2", "v3"), ("v3", "v4")):
        there = await until(project.processes, "a process waits for the next change")
        project.change(old, new)
        shown = project.terminal.until("ready")
        assert "shop.py changed: the daemon is started anew" in shown
        assert (
            psutil.Process(project.daemon()).ppid() in there
        )  # its supervisor had imported before what does not change
        await until_state(db, job, "running")
    project.change("asyncio.sleep(seconds)", "asyncio.sleep(0)")
    row = await until_state(db, job, "succeeded", "failed")
    assert (row["result"], row["failures"]) == ('"v4"', 0)
    outcomes = [attempt["outcome"] for attempt in project.ctl.json("jobs", "show", str(job))["attempts"]]
    assert outcomes == ["returned"] * 4 + ["succeeded"]


async def test_a_change_within_a_second_that_keeps_the_length_runs_too(
    project: Project, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    before = project.module.stat()
    project.change("v1", "v2")
    os.utime(project.module, (before.st_atime, before.st_mtime))  # compiled code is told from old by second and length
    project.terminal.until("ready")
    row = await until_state(db, project.enqueue("version"), "succeeded", "failed")
    assert row["result"] == '"v2"'


async def test_a_mistake_in_the_code_is_shown_with_its_place_and_the_next_change_is_waited_for(
    project: Project,
) -> None:
    project.change('return "v1"', 'retrun "v1"')
    shown = project.terminal.until("started again when a source changes")
    assert f'File "{project.module}", line 7' in shown
    assert "SyntaxError: invalid syntax" in shown
    project.change("retrun", "return")
    project.terminal.until("ready")
    project.terminal.shown = ""
    (project.ctl.directory / ".env").write_text("workers=3\n")
    project.terminal.until("ready")
    assert project.ctl.json("status")["workers"] == 3


@pytest.mark.parametrize("task", ["held", "held_in_thread"])
async def test_a_breakpoint_holds_a_job_past_its_timeout_and_a_change_waits_for_it(
    project: Project, db: asyncpg.Connection[asyncpg.Record], task: str
) -> None:
    job = project.enqueue(task)
    project.terminal.until("(Pdb)")
    project.terminal.type("p 2 * seen\r")
    project.terminal.until("84")
    project.change("v1", "v2")
    project.terminal.until("a debugger holds it")  # by now longer than its timeout, and than STALL_LIMIT
    project.terminal.type("c\r")
    row = await until_state(db, job, "succeeded", "failed", "scheduled", "queued")
    assert (row["state"], row["attempt"], row["result"]) == ("succeeded", 1, "42")
    project.terminal.again("ready")


async def test_ctrl_c_ends_the_daemon_with_dev_and_a_third_one_kills_what_a_debugger_holds(
    project: Project, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    job = project.enqueue("held")
    project.terminal.until("(Pdb)")
    project.terminal.type("\x03")
    project.terminal.until("a third one kills it")

    async def insists() -> bool:
        project.terminal.type("\x03")
        return project.daemon() is None

    await until(insists, "the daemon is killed")
    assert project.terminal.process.wait(60) == 0
    assert project.ctl("status").returncode == 3
    project.module.write_text(TASKS.replace("breakpoint()", ""))
    terminal = Terminal(project.ctl, "dev")
    assert (await until_state(db, job, "succeeded"))["failures"] == 0
    terminal.type("\x03")
    assert "stopped: PID" in terminal.to_the_end()
    assert terminal.process.wait(60) == 0
    assert project.ctl("status").returncode == 3


@pytest.mark.parametrize("processes", [1, 2])
async def test_ctrl_c_is_heard_while_the_daemon_still_imports(ctl: Ctl, processes: int) -> None:
    terminal = Terminal(ctl, "dev")

    async def begun() -> bool:
        assert terminal.process.poll() is None, terminal.to_the_end()
        return (
            len(psutil.Process(terminal.process.pid).children()) >= processes
        )  # the daemon, then the next one's spare

    await until(begun, "the processes have begun")
    terminal.type("\x03")
    assert "Traceback" not in terminal.to_the_end()
    assert terminal.process.wait(60) == 0
    terminal.close()


def test_dev_beside_a_daemon_that_runs_says_so(ctl: Ctl) -> None:
    assert ctl("start").returncode == 0
    refused = ctl("dev")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "runs already" in refused.stderr


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("shop/tasks.py", True),
        ("shop/page.html", False),
        (".venv/lib/x.py", False),
        ("node_modules/x/y.py", False),
        (".git/hooks/x.py", False),
        ("shop/__pycache__/x.py", False),
        ("state/x.py", False),
    ],
)
def test_only_sources_count(tmp_path: Path, path: str, counts: bool) -> None:
    settings = Settings(app_dir=tmp_path, state_dir=tmp_path / "state", tasks=("tests.handlers",))
    sources = Sources.of(settings, tmp_path / "worker.env")
    assert sources.is_code(Change.modified, str(tmp_path / path)) is counts
    assert sources.is_settings(Change.modified, str(tmp_path / "worker.env"))
    assert sources.folders == {tmp_path.resolve(), Path(__file__).parent.parent.resolve()}
