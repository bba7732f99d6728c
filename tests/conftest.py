"""What all tests share: a PostgreSQL of their own, a fresh database each, daemons in this process and beside it."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.manager_process import ManagerProcess, through
from tests.support import ROOT, Ctl, DaemonProcess, InProcess
from workerd import Queue, embedded
from workerd.embedded import binaries
from workerd.queue import migrate
from workerd.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

_number = count(1)
_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30  # bytes that a server and the databases of its tests stay well below


def server_directory() -> str | None:
    """Where test servers keep their data: in memory where there is room, else in the directory for temporary files.

    Each test makes and drops a database; on a disk that other programs write to, each of these waits for the disk.
    """
    return str(_MEMORY) if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM else None


def pytest_configure() -> None:
    """Let what tests start be interrupted: a shell starts what it runs in the background with SIGINT ignored, which is inherited."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Look for garbage as seldom as a daemon does, and not in what was imported: that took a fifth of the time of a test process."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test has logged goes from one test process to another, where lone surrogates cannot."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No setting of the machine reaches a test, and no test writes into somebody's home."""
    keep = {
        "PATH",
        "LANG",
        "INVOICES",
        "WORKERD_TEST_SERVER",
        "WORKERD_TEST_PROGRAMS",
        "TMPDIR",
        "VIRTUAL_ENV",
        "CI",
    }
    before = dict(os.environ)
    for name in before:
        if name not in keep and not name.startswith(("PYTEST", "PYTHON", "COV_", "SSL_", "PIP_", "TESTBED")):
            del os.environ[name]
    os.environ["HOME"] = str(tmp_path_factory.mktemp("home"))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def server(clean_environment: None) -> Iterator[str]:
    """The address of a PostgreSQL on which tests may make databases: WORKERD_TEST_SERVER, else an embedded one.

    WORKERD_TEST_PROGRAMS names the directory of the programs of another version to run it with.
    """
    given = os.environ.get("WORKERD_TEST_SERVER")
    if given:
        yield given
        return
    programs = os.environ.get("WORKERD_TEST_PROGRAMS")
    if programs:
        binaries.find = lambda: Path(programs)
    state = Path(tempfile.mkdtemp(prefix="workerd-test-", dir=server_directory()))
    state.chmod(0o755)
    try:
        yield embedded.start(state)
        assert embedded.stop_if_unused(state), "a test left a connection open"
    finally:
        shutil.rmtree(state)


def make_template(server: str) -> str:
    """Make the database with the schema of which each test gets a copy; gives its name."""

    async def make() -> None:
        connection = await asyncpg.connect(server)
        await connection.execute("DROP DATABASE IF EXISTS workerd_template WITH (FORCE)")
        await connection.execute("CREATE DATABASE workerd_template")
        await connection.close()
        connection = await asyncpg.connect(server, database="workerd_template")
        await migrate.upgrade(connection)
        await connection.close()

    asyncio.run(make())
    return "workerd_template"


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """The name of a database with the schema, of which each test gets a copy."""
    return make_template(server)


async def fresh_database(server: str, template: str) -> AsyncIterator[str]:
    name = f"workerd_test_{os.getpid()}_{next(_number)}"
    connection = await asyncpg.connect(server)
    # to copy the files costs a fraction of writing them to the log
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    head, mark, query = server.partition("?")
    yield f"{head.rpartition('/')[0]}/{name}{mark}{query}"
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def dsn(server: str, template: str) -> AsyncIterator[str]:
    """The address of a fresh database with the schema."""
    async for address in fresh_database(server, template):
        yield address


@pytest.fixture
async def empty_dsn(server: str) -> AsyncIterator[str]:
    """The address of a fresh database without the schema."""
    async for address in fresh_database(server, "template0"):
        yield address


@pytest.fixture
async def queue(dsn: str) -> AsyncIterator[Queue]:
    async with Queue.connect(dsn) as opened:
        yield opened


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection of an observer."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


@pytest.fixture
def settings(dsn: str, tmp_path: Path) -> Settings:
    """Settings of a daemon that works on the test's database and writes below the test's directory."""
    return Settings(
        database_url=dsn,
        tasks=("tests.handlers",),
        workers=4,
        heartbeat_interval=0.5,
        poll_interval=1.0,
        retry_delay=0.01,
        progress_interval=0.05,
        state_dir=tmp_path / "state",
        runtime_dir=tmp_path / "run",
        log_dir=tmp_path / "log",
        attachments_dir=tmp_path / "attachments",
    )


@pytest.fixture
async def node(settings: Settings) -> AsyncIterator[InProcess]:
    """A daemon in this process, for tests of behaviour; it is ready."""
    async with InProcess(settings) as running:
        yield running


@pytest.fixture
def daemon(settings: Settings) -> Iterator[DaemonProcess]:
    """A daemon process, not started yet; killed at the end of the test if it still runs."""
    with DaemonProcess(settings) as process:
        yield process


@pytest.fixture
def ctl(dsn: str, tmp_path: Path) -> Iterator[Ctl]:
    """`workerctl` on the test's database, in a directory of its own; stops the daemon that it may have started."""
    home = tmp_path / "project"
    home.mkdir()
    command = Ctl(
        {
            "DATABASE_URL": dsn,
            "TASKS": "tests.handlers",
            "APP_DIR": str(ROOT),
            "STATE_DIR": str(tmp_path / "state"),
            "RUNTIME_DIR": str(tmp_path / "run"),
            "LOG_DIR": str(tmp_path / "log"),
            "HEARTBEAT_INTERVAL": "0.5",
            "POLL_INTERVAL": "1",
        },
        home,
    )
    yield command
    if any((tmp_path / "run").glob("*")):  # of what was started
        command("stop", "--now")


@pytest.fixture
async def manager(dsn: str, tmp_path: Path) -> AsyncIterator[ManagerProcess]:
    """A manager of the test's database, as a process; it answers."""
    home = tmp_path / "manager"
    home.mkdir()
    with ManagerProcess(dsn, home) as process:
        await process.start()
        yield process


@pytest.fixture
async def remote(manager: ManagerProcess, settings: Settings, db: asyncpg.Connection[asyncpg.Record]) -> Settings:
    """Settings of a daemon that has no database and works through the manager."""
    return await through(manager, settings, db)
