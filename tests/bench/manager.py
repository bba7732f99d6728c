"""How soon the manager answers with a million jobs in the database.

`python tests/bench/manager.py [--rate 100] [--seconds 60]` on an embedded PostgreSQL of its own. Prints one JSON line for each rate:
milliseconds of `GET /api/v1/jobs?state=failed` (median, p99, longest), answers that were no 200, and requests a second that came. After
the given rate higher ones, until one is not kept or an answer is wrong. Then, with another million that waits, milliseconds until Chromium
first paints each page (median and longest of nine), where there is a Chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import httpx
from playwright.async_api import async_playwright

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.system.browser.conftest import FLAGS
from workerd import embedded
from workerd.queue import migrate, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

JOBS = 1_000_000
FILL = """
    INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, enqueued_at, queued_at, started_at, node, task,
        payload, result, error)
    SELECT n, (SELECT max(day) FROM workerd.history_day), workerd.lane_of('default', 0), CASE WHEN bad THEN 'failed' ELSE 'succeeded' END,
        1, bad::int, 0, now(), now(), now(), 1, 'echo', jsonb_build_object('path', 'invoice-' || n || '.pdf'),
        CASE WHEN NOT bad THEN '{"pages": 3}'::jsonb END, CASE WHEN bad THEN 'ValueError: no number on page 1' END
    FROM (SELECT n, n % 100 = 7 AS bad FROM generate_series(1, $1::int) n) numbered
"""


WAIT = """
    INSERT INTO workerd.ready (lane, id, task, payload)
    SELECT workerd.lane_of(CASE n % 3 WHEN 0 THEN 'mail' WHEN 1 THEN 'ocr' ELSE 'default' END, 0), nextval('workerd.job_id'), 'echo', '{}'
    FROM generate_series(1, $1::int) n
"""
PAGES = ("/", "/jobs", "/jobs?state=failed", "/queues", "/nodes", "/schedules", "/jobs/3")
PAINTED = """() => new Promise((resolve) => new PerformanceObserver((list) => {
    const paint = list.getEntriesByName("first-contentful-paint")[0];
    if (paint) resolve(paint.startTime);
}).observe({ type: "paint", buffered: true }))"""


async def fill(dsn: str) -> str:
    """A million jobs of which one in a hundred has failed; returns a token."""
    connection = await asyncpg.connect(dsn)
    await migrate.upgrade(connection)
    await connection.execute("SELECT workerd.add_history_days(ARRAY[604800.0::float8])")
    await connection.execute(FILL, JOBS, timeout=600)
    await connection.execute("SELECT setval('workerd.job_id', $1::bigint)", JOBS)
    await connection.execute("VACUUM ANALYZE workerd.history", timeout=600)
    token = await tokens.create(connection, "bench", ["read"])
    await connection.close()
    return token


async def measure(client: httpx.AsyncClient, rate: int, seconds: int) -> dict[str, float]:
    """Requests at a steady rate, whether those before have been answered or not."""
    took: list[float] = []
    wrong = 0

    async def ask() -> None:
        nonlocal wrong
        began = time.perf_counter()
        answer = await client.get("/api/v1/jobs", params={"state": "failed"})
        took.append(1000 * (time.perf_counter() - began))
        wrong += answer.status_code != 200 or len(answer.json()["jobs"]) != 50

    begin = time.perf_counter()
    asked = []
    for number in range(rate * seconds):
        await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
        asked.append(asyncio.create_task(ask()))
    await asyncio.gather(*asked)
    ranked = sorted(took)
    return {
        "rate": rate,
        "median_ms": round(ranked[len(ranked) // 2], 1),
        "p99_ms": round(ranked[int(len(ranked) * 0.99)], 1),
        "longest_ms": round(ranked[-1], 1),
        "wrong": wrong,
        "per_second": round(len(ranked) / (time.perf_counter() - begin), 1),
    }


@contextlib.contextmanager
def served(dsn: str, home: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    manager = subprocess.Popen(
        [sys.executable, "-m", "workerctl", "manager", "--port", str(port)],
        env={**os.environ, "DATABASE_URL": dsn, "STATE_DIR": str(home), "RUNTIME_DIR": str(home), "LOG_DIR": str(home)},
        stdout=subprocess.DEVNULL,
    )
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        manager.terminate()
        manager.wait(30)


async def run(address: str, token: str, rate: int, seconds: int) -> None:
    limits = httpx.Limits(max_connections=200)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, limits=limits, timeout=60) as client:
        while True:
            figures = await measure(client, rate, seconds)
            print(json.dumps(figures), flush=True)
            if figures["wrong"] or figures["per_second"] < 0.95 * rate:
                return
            rate, seconds = rate * 3 // 2, 10


async def paint(dsn: str, address: str, token: str) -> None:
    """How soon each page is first painted."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(WAIT, JOBS, timeout=600)
    await connection.close()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = await browser.new_page(base_url=address)
        await page.goto("/")
        await page.get_by_label("Token").fill(token)
        await page.get_by_role("button", name="Log in").click()
        await page.get_by_role("heading", name="Overview").wait_for()
        for path in PAGES:
            took = []
            for _ in range(9):
                await page.goto(path)
                took.append(round(await page.evaluate(PAINTED)))
            print(json.dumps({"page": path, "median_ms": sorted(took)[4], "longest_ms": max(took)}), flush=True)
        await browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wd-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        dsn = embedded.start(home)
        try:
            token = asyncio.run(fill(dsn))
            with served(dsn, home) as address:
                asyncio.run(run(address, token, given.rate, given.seconds))
                if shutil.which("chromium") is not None:
                    asyncio.run(paint(dsn, address, token))
        finally:
            embedded.stop_if_unused(home)


if __name__ == "__main__":
    main()
