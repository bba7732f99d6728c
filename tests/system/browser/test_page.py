"""What an operator does with the page, and what anybody needs in order to use it."""

from __future__ import annotations

import re
from itertools import product
from statistics import median
from typing import TYPE_CHECKING, Literal

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from tests.support import until_state
from tests.system.browser.conftest import LIMIT

if TYPE_CHECKING:
    import asyncpg
    from playwright.async_api import Browser, Page

    from tests.manager_process import ManagerProcess
    from tests.support import DaemonProcess
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

NASTY = "<script>alert(1)</script>"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PAGES = ("/", "/jobs", "/queues", "/nodes", "/schedules", "/docs", "/jobs/1", "/login", "/queues/default/purge")


async def test_a_failing_job_is_read_retried_and_watched_its_queue_paused_and_its_node_scaled(
    page: Page, daemon: DaemonProcess, settings: Settings, queue: Queue, db: DB
) -> None:
    daemon.settings = settings.model_copy(update={"workers": 2})
    daemon.start()
    job = await queue.enqueue("stumble", {"until_attempt": 2}, max_retries=0)
    await until_state(db, job, "failed")
    await page.get_by_role("link", name=str(job), exact=True).click()  # it has come to the overview by itself
    await expect(page.locator("pre.error")).to_contain_text("Traceback (most recent call last)")
    await expect(page.locator("pre.error")).to_contain_text("attempt 1 stumbles")
    await page.get_by_role("button", name="Retry now").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("succeeded")
    await page.get_by_role("link", name="Queues").click()
    await page.get_by_role("button", name="Pause default").click()
    await expect(page.get_by_role("button", name="Resume default")).to_be_visible()
    waiting = await queue.enqueue("echo", {"value": 1})
    await page.get_by_role("link", name="Nodes").click()
    await page.get_by_role("link", name=settings.node).click()
    workers = page.get_by_label("Workers")
    await expect(workers).to_have_value("2")
    await workers.fill("4")
    await page.get_by_role("button", name="Scale").click()
    await expect(page.get_by_label("Workers")).to_have_value("4")
    await expect(page.locator(".facts")).to_contain_text("4, 0 busy")
    await page.get_by_role("link", name="Queues").click()
    await page.get_by_role("button", name="Resume default").click()
    await page.goto(f"/jobs/{waiting}")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("succeeded")


async def test_news_come_while_the_page_is_looked_at(page: Page, queue: Queue) -> None:
    await page.goto("/jobs")
    await expect(page.locator("#live")).to_contain_text("None.")
    job = await queue.enqueue("echo", {"value": 1})
    await expect(page.get_by_role("link", name=str(job), exact=True)).to_be_visible()
    await expect(page.locator("time").first).not_to_contain_text("UTC")


OBSERVE = """() => {
  window.delays = {};
  window.loads = [];
  (async () => {
    for (;;) {
      const began = performance.now();
      await (await fetch(location)).text();
      window.loads.push((performance.now() - began) / 1000);
      await new Promise((go) => setTimeout(go, 600));
    }
  })();
  new MutationObserver(() => {
    const told = document.getElementById("live").textContent.match(/at (\\d+\\.\\d+)/);
    if (told && !(told[1] in window.delays)) window.delays[told[1]] = Date.now() / 1000 - Number(told[1]);
  }).observe(document.getElementById("live"), { childList: true, subtree: true });
}"""


async def test_how_far_a_job_is_shows_within_a_second(
    page: Page, daemon: DaemonProcess, settings: Settings, queue: Queue
) -> None:
    """Beside the time that manager and browser take for anything: for the same page, say."""
    daemon.settings = settings.model_copy(update={"progress_interval": 60.0})
    daemon.start()
    job = await queue.enqueue("telling_the_time", {"times": 12})
    await page.goto(f"/jobs/{job}")
    await page.evaluate(OBSERVE)
    await expect(page.get_by_role("heading", level=1)).to_contain_text("succeeded")
    delays = list((await page.evaluate("window.delays")).values())
    loads = await page.evaluate("window.loads")
    assert len(delays) >= 6, delays
    assert median(delays) < 1.0 + 5 * median(loads), (delays, loads)


async def test_what_jobs_carry_is_shown_and_not_run(page: Page, queue: Queue) -> None:
    asked: list[str] = []
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    job = await queue.enqueue(NASTY, {"value": NASTY, "long": "y" * 990_000}, key=NASTY, queue=NASTY)
    for path in ("/", "/jobs", f"/jobs/{job}", "/queues"):
        await page.goto(path)
        await expect(page.locator("#live")).to_contain_text(NASTY)
    assert asked == []


async def test_a_question_comes_before_a_job_is_cancelled(page: Page, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("echo", {"value": 1})
    await page.goto(f"/jobs/{job}")
    page.once("dialog", lambda dialog: dialog.dismiss())
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("queued")
    page.once("dialog", lambda dialog: dialog.accept())
    await page.get_by_role("button", name="Cancel").click()
    await until_state(db, job, "cancelled")


async def test_many_jobs_are_cancelled_when_their_number_was_shown(page: Page, queue: Queue, db: DB) -> None:
    ids = await queue.enqueue_many("echo", [{"value": n} for n in range(60)])
    await page.goto("/jobs?task=echo")
    await page.get_by_role("button", name="Cancel …").click()
    await expect(page.locator("main")).to_contain_text("60 jobs fit")
    await page.get_by_role("button", name="Cancel 60 jobs").click()
    await expect(page.locator("main")).to_contain_text("60 of 60 jobs")
    await until_state(db, ids[-1], "cancelled")


async def test_axe_finds_nothing_serious_and_nothing_stands_out_of_a_phone(
    page: Page, daemon: DaemonProcess, queue: Queue, db: DB
) -> None:
    daemon.start()
    assert await queue.enqueue("stumble", {"until_attempt": 9}, max_retries=0, queue="default") == 1
    await until_state(db, 1, "failed")
    wrong: list[object] = []
    for path in PAGES:
        await page.goto(path)
        for width, scheme in product((1280, 360), SCHEMES):
            await page.set_viewport_size({"width": width, "height": 740})
            await page.emulate_media(color_scheme=scheme)
            found = (await Axe().run(page)).response["violations"]
            wrong += [(path, width, scheme, each) for each in found if each["impact"] in ("serious", "critical")]
            wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            wrong += [(path, width, f"{wide} pixels too wide")] if wide > 0 else []
    assert wrong == []


async def test_the_page_can_be_read_without_script(
    chromium: Browser, manager: ManagerProcess, token: str, page: Page, queue: Queue
) -> None:
    job = await queue.enqueue("echo", {"value": 1})
    context = await chromium.new_context(base_url=manager.url, java_script_enabled=False)
    context.set_default_timeout(LIMIT)
    plain = await context.new_page()
    await plain.goto(f"/jobs/{job}")
    await plain.get_by_label("Token").fill(token)
    await plain.get_by_role("button", name="Log in").click()
    await expect(plain.get_by_role("heading", level=1)).to_contain_text(re.compile(rf"Job {job}\s+queued"))
    await expect(plain.locator("time").first).to_contain_text("UTC")
    await context.close()


async def test_the_keyboard_alone_is_enough(page: Page, queue: Queue) -> None:
    job = await queue.enqueue("echo", {"value": 1})
    await page.goto(f"/jobs/{job}")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.once("dialog", lambda dialog: dialog.accept())
    button = page.get_by_role("button", name="Cancel")
    await button.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("cancelled")


async def test_nothing_is_asked_of_another_host(page: Page, manager: ManagerProcess) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in PAGES[:5]:
        await page.goto(path)
    assert asked
    assert [url for url in asked if not url.startswith(manager.url)] == []
