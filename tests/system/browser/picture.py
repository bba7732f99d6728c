"""Makes docs/page.png, the picture of the page in the README: `python tests/system/browser/picture.py`.

A daemon and a manager on an embedded PostgreSQL of their own work on the sample mailbox of the invoice assistant.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

import asyncpg
from playwright.async_api import async_playwright

sys.path.insert(0, str(Path(__file__).parent.parent.parent.parent))

from invoices import samples
from tests.manager_process import ManagerProcess
from tests.support import ROOT, DaemonProcess, until
from tests.system.browser.conftest import FLAGS
from workerd import Queue, embedded
from workerd.queue import migrate, tokens
from workerd.settings import Settings

ENDED = "SELECT count(*) > 200 FROM workerd.history WHERE state = 'succeeded'"


async def take(dsn: str, state: Path) -> None:
    """The overview while the daemon works."""
    connection = await asyncpg.connect(dsn)
    await migrate.upgrade(connection)
    token = await tokens.create(connection, "operator", ["operate"])
    settings = Settings(
        database_url=dsn,
        tasks=("invoices",),
        workers=4,
        node_name="worker-1",
        retry_delay=3600,
        state_dir=state,
        runtime_dir=state / "run",
        log_dir=state / "log",
        attachments_dir=state / "attachments",
    )
    with ManagerProcess(dsn, state) as manager, DaemonProcess(settings) as daemon:
        await manager.start()
        await asyncio.to_thread(daemon.start)
        async with Queue.connect(dsn) as queue:
            mails = sorted(Path(samples.__file__).parent.glob("*.eml"))
            for round_ in range(30):
                await queue.enqueue_many("process_email", [{"path": str(mail)} for mail in mails] * (1 + round_ % 7))
                await asyncio.sleep(2)
            await queue.enqueue("ocr_extract", {"path": "/nowhere/lost.pdf"}, max_retries=0)
            await until(lambda: connection.fetchval(ENDED), "the mailbox is read")
            await queue.enqueue_many("send_notification", [{"subject": "due", "text": "tomorrow"}] * 12, delay="1h")
            await picture(manager.url, token)
    await connection.close()


async def picture(url: str, token: str) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = await browser.new_page(
            base_url=url, viewport={"width": 1200, "height": 860}, color_scheme="light", timezone_id="UTC"
        )
        await page.goto("/")
        await page.get_by_label("Token").fill(token)
        await page.get_by_role("button", name="Log in").click()
        await page.get_by_role("heading", name="Overview").wait_for()
        await page.screenshot(path=ROOT / "docs" / "page.png")
        await browser.close()


def main() -> None:
    state = Path(tempfile.mkdtemp(prefix="workerd-picture-"))
    state.chmod(0o755)
    try:
        dsn = embedded.start(state)
        asyncio.run(take(dsn, state))
        embedded.stop_if_unused(state)
    finally:
        shutil.rmtree(state)


if __name__ == "__main__":
    main()
