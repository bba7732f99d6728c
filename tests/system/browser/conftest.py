"""A browser that has logged in to a manager, and a daemon whose jobs it shows."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright, expect

from workerd.queue import tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg
    from playwright.async_api import Browser, Page

    from tests.manager_process import ManagerProcess

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
LIMIT = 180_000  # milliseconds: a busy machine shows it late
expect.set_options(timeout=LIMIT)


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=FLAGS, timeout=LIMIT)
        yield browser
        await browser.close()


@pytest.fixture
async def token(db: asyncpg.Connection[asyncpg.Record]) -> str:
    return await tokens.create(db, "browser", ["operate"])


@pytest.fixture
async def page(chromium: Browser, manager: ManagerProcess, token: str) -> AsyncIterator[Page]:
    """On the overview, logged in; an error of a script, or a refused piece of the page, fails the test."""
    context = await chromium.new_context(base_url=manager.url, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(LIMIT)
    opened = await context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    await opened.goto("/")
    await opened.get_by_label("Token").fill(token)
    await opened.get_by_role("button", name="Log in").click()
    await opened.get_by_role("heading", name="Overview").wait_for()
    yield opened
    assert wrong == []
    await context.close()
