"""`workerctl top` on real terminals: nothing is cut or covered, and its keys do what the footer says."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import asyncpg
import pytest

import tests.terminal
from tests.support import until, until_state
from tests.system.systemd.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support import Ctl

pytestmark = pytest.mark.system

SIZES = [(80, 24), (200, 50)]
TITLES = ("workers", "queues", "throughput", "jobs", "log")
KEYS = ("Show", "Quit", "Scale up", "down", "Pause", "Retry", "All/failed", "Drain")


class Screen:
    """`workerctl top` on a terminal."""

    def __init__(self, ctl: Ctl, columns: int, lines: int) -> None:
        environment = [f"{name}={value}" for name, value in {**ctl.environment, "COLORTERM": "truecolor"}.items()]
        command = [
            "env",
            "-u",
            "COLUMNS",
            "-u",
            "LINES",
            "-C",
            str(ctl.directory),
            *environment,
            sys.executable,
            "-m",
            "workerctl",
            "top",
        ]
        self.terminal = Terminal(command, lines, columns)
        self.columns = columns

    async def shows(self, *texts: str) -> list[str]:
        """The lines, when all these are on the screen; none is ever wider than the terminal."""

        async def look() -> list[str] | None:
            lines = await asyncio.to_thread(self.terminal.screen)
            assert max(map(len, lines), default=0) <= self.columns
            return lines if all(any(text in line for line in lines) for text in texts) else None

        try:
            found: list[str] = await until(look, f"{texts} on the screen")
        except AssertionError:
            print("\n".join(self.terminal.screen()))
            raise
        return found


@pytest.fixture
async def working(ctl: Ctl, db: asyncpg.Connection[asyncpg.Record]) -> AsyncIterator[tuple[Ctl, int]]:
    """A daemon that runs two jobs; one has failed, whose id it gives."""
    started = await asyncio.to_thread(ctl, "start", "3")
    assert started.returncode == 0, started.stderr
    failed = ctl.json("enqueue", "failing", '{"number": 7}', "--max-retries", "0")["id"]
    running = [ctl.json("enqueue", "nap", '{"seconds": 600}')["id"] for _ in range(2)]
    await until_state(db, failed, "failed")
    for job in running:
        await until_state(db, job, "running")
    yield ctl, failed
    await asyncio.to_thread(ctl, "stop", "--now")


@pytest.mark.parametrize(("columns", "lines"), SIZES)
async def test_all_is_on_the_screen_and_keys_scale_pause_and_retry(
    working: tuple[Ctl, int], db: asyncpg.Connection[asyncpg.Record], columns: int, lines: int
) -> None:
    ctl, failed = working
    screen = Screen(ctl, columns, lines)
    with screen.terminal:
        shown = await screen.shows(
            "worker (local) running", "3 workers, 2 busy", "database connected", "jobs failed, the newest", "nap", *KEYS
        )
        assert len(shown) == lines, "\n".join(shown)
        titles = [line for line in shown if line.startswith("─")]
        assert all(any(f"─{title}" in line for line in titles) for title in TITLES), shown
        assert all(key in shown[-1] for key in KEYS), shown[-1]
        assert any(line.startswith(f"{failed} ") and "failing" in line and "failed" in line for line in shown)
        screen.terminal.type("+")
        await screen.shows("4 workers (were 3)", "4 workers, 2 busy")
        assert ctl.json("status")["workers"] == 4
        screen.terminal.type("p")
        await screen.shows("default is paused", "  paused")
        assert await db.fetchval("SELECT paused_at IS NOT NULL FROM workerd.queue WHERE name = 'default'")
        screen.terminal.type("r")
        await screen.shows(f"job {failed} is queued again")
        await until_state(db, failed, "queued")  # its queue is paused
        screen.terminal.type("p")
        await screen.shows("default is served again")
        await until_state(db, failed, "failed")
        await screen.shows("jobs failed, the newest")
        screen.terminal.type("Enter")
        await screen.shows(f"─ job {failed} ─", "Traceback", "Esc closes")
        screen.terminal.type("q")
        await screen.shows("─queues")
        screen.terminal.type("d")
        await screen.shows("Drain worker and stop it?")
        screen.terminal.type("n")
        screen.terminal.type("q")
    assert ctl("status").returncode == 0


async def test_it_says_that_the_daemon_is_stopped_or_the_database_away_and_goes_on(
    ctl: Ctl, server: str, dsn: str
) -> None:
    screen = Screen(ctl, 80, 24)
    with screen.terminal:
        await screen.shows("worker (local) stopped; `workerctl start` starts it", "jobs failed, none")
        started = await asyncio.to_thread(ctl, "start", "2")
        assert started.returncode == 0
        await screen.shows("worker (local) running", "2 workers, 0 busy")
        name = dsn.partition("?")[0].rpartition("/")[2]
        other = await asyncpg.connect(server)
        await other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        await screen.shows("database cannot be reached: ", "queues: as of", "jobs failed, none: as of")
        await other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await other.close()
        await screen.shows("database connected", "jobs failed, none─")


def test_without_a_terminal_it_says_so(ctl: Ctl) -> None:
    refused = ctl("top")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "workerctl status --json" in refused.stderr


def test_without_the_extra_it_says_which_one_to_install(ctl: Ctl) -> None:
    missing = ctl.directory / "without" / "textual"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text("raise ImportError('it is not here')")
    terminal = tests.terminal.Terminal(ctl, "top", PYTHONPATH=f"{missing.parent}:{os.environ.get('PYTHONPATH', '')}")
    assert terminal.to_the_end() == "workerctl: top needs Textual: pip install 'workerd[tui]'\n"
    assert terminal.process.wait(60) == 1
    terminal.close()
