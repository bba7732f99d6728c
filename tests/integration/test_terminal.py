"""What the toolkit shows on a terminal of 80 columns, and what goes through a pipe."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from tests.support import until
from tests.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Ctl


@pytest.fixture
def working(ctl: Ctl) -> Iterator[Ctl]:
    assert ctl("start", "3").returncode == 0
    assert ctl("enqueue", "echo", '{"value": "héllo"}').returncode == 0
    job = ctl.json("enqueue", "failing", '{"number": 7}', "--max-retries", "0")["id"]
    ctl("jobs", "wait", str(job))
    yield ctl
    ctl("stop", "--now")


def test_status_fits_80_columns_of_a_terminal_and_is_plain_in_a_pipe(working: Ctl) -> None:
    terminal = Terminal(working, "status")
    shown = terminal.to_the_end()
    terminal.close()
    assert "running" in shown
    assert "│" in shown
    assert "\x1b[" in terminal.shown
    assert max(map(len, shown.splitlines())) <= 80
    piped = working("status").stdout
    assert re.search(r"^state +running *$", piped, re.MULTILINE)
    assert piped.isascii()
    assert "\x1b" not in piped


def test_the_log_on_a_terminal_is_for_people_and_goes_on(working: Ctl) -> None:
    terminal = Terminal(working, "logs", "-f", "--lines", "20")
    shown = terminal.until("failed for good")
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ERROR {3}\[job \d+ failing #1\] ", shown, re.MULTILINE), shown
    assert '{"ts"' not in shown
    assert re.search(r"\x1b\[31m\d{4}", terminal.shown), "an error is red"
    working("scale", "5")
    terminal.until("scaled from 3 to 5 workers")
    terminal.close()
    assert '{"ts"' in working("logs", "--lines", "3").stdout
    assert "\x1b" not in working("logs", "--lines", "100").stdout


@pytest.mark.parametrize("words", [("jobs", "list"), ("jobs", "errors"), ("nodes", "list"), ("stats",)])
async def test_lists_fit_too_and_keep_ids_and_names_whole(working: Ctl, words: tuple[str, ...]) -> None:
    async def counted() -> bool:
        return len((await asyncio.to_thread(working.json, "stats"))["tasks"]) == 2

    await until(counted, "both jobs are counted")
    terminal = Terminal(working, *words)
    shown = terminal.to_the_end()
    terminal.close()
    assert max(map(len, shown.splitlines())) <= 80
    whole = {
        "jobs": ("failing", "ValueError: order 7"),
        "nodes": (working.json("nodes", "list")[0]["id"], "alive", "3, 0 busy"),
        "stats": ("failing", "echo", "100.0%", "scheduled"),
    }[words[0]]
    for text in whole:
        assert text in shown
