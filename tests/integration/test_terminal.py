"""What the toolkit shows on a terminal of 80 columns, and what goes through a pipe."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from tests.support import until
from tests.terminal import Terminal
from workerd.queue import inspect

if TYPE_CHECKING:
    import asyncpg

    from tests.support import Ctl, InProcess
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]


@pytest.fixture
def started(ctl: Ctl) -> Ctl:
    assert ctl("start", "3").returncode == 0
    return ctl


@pytest.fixture
async def working(node: InProcess, ctl: Ctl, queue: Queue, db: DB) -> Ctl:
    """Beside a daemon that has done one job and failed at another, and counted both."""
    for task, payload in (("echo", {"value": "héllo"}), ("failing", {"number": 7})):
        await queue.enqueue(task, payload, max_retries=0)

    async def counted() -> bool:
        return len(await inspect.tasks(db, 1)) == 2

    await until(counted, "both jobs are counted")
    return ctl


async def shown_by(ctl: Ctl, *words: str) -> tuple[str, str]:
    """What a command shows, without colours and with them."""
    terminal = Terminal(ctl, *words)
    try:
        return await asyncio.to_thread(terminal.to_the_end), terminal.shown
    finally:
        terminal.close()


async def test_status_fits_80_columns_of_a_terminal_and_is_plain_in_a_pipe(started: Ctl) -> None:
    shown, coloured = await shown_by(started, "status")
    assert "running" in shown
    assert "│" in shown
    assert "\x1b[" in coloured
    assert max(map(len, shown.splitlines())) <= 80
    piped = (await asyncio.to_thread(started, "status")).stdout
    assert re.search(r"^state +running *$", piped, re.MULTILINE)
    assert piped.isascii()
    assert "\x1b" not in piped


async def test_lists_fit_too_and_keep_ids_and_names_whole(working: Ctl) -> None:
    node = (await asyncio.to_thread(working.json, "nodes", "list"))[0]["id"]
    whole = {
        "jobs list": ("failing", "ValueError: order 7"),
        "jobs errors": ("failing", "ValueError: order 7"),
        "nodes list": (node, "alive", "4, 0 busy"),
        "stats": ("failing", "echo", "100.0%", "scheduled"),
    }
    for words, texts in whole.items():
        shown, _ = await shown_by(working, *words.split())
        assert max(map(len, shown.splitlines())) <= 80, shown
        assert [text for text in texts if text not in shown] == [], shown


def test_the_log_on_a_terminal_is_for_people_and_goes_on(started: Ctl) -> None:
    job = started.json("enqueue", "failing", '{"number": 7}', "--max-retries", "0")["id"]
    started("jobs", "wait", str(job))
    terminal = Terminal(started, "logs", "-f", "--lines", "20")
    shown = terminal.until("failed for good")
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ERROR {3}\[job \d+ failing #1\] ", shown, re.MULTILINE), shown
    assert '{"ts"' not in shown
    assert re.search(r"\x1b\[31m\d{4}", terminal.shown), "an error is red"
    started("scale", "5")
    terminal.until("scaled from 3 to 5 workers")
    terminal.close()
    assert '{"ts"' in started("logs", "--lines", "3").stdout
    assert "\x1b" not in started("logs", "--lines", "100").stdout
