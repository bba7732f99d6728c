"""How soon the manager answers with a million jobs in the database.

`python tests/bench/manager.py [--rate 100] [--seconds 60]` on an embedded PostgreSQL of its own. Prints one JSON line for each rate:
milliseconds of `GET /api/v1/jobs?state=failed` (median, p99, longest), answers that were no 200, and requests a second that came. After the
given rate higher ones, until one is not kept or an answer is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import httpx

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

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


async def fill(dsn: str) -> str:
    """A million jobs of which one in a hundred has failed; returns a token."""
    connection = await asyncpg.connect(dsn)
    await migrate.upgrade(connection)
    await connection.execute("SELECT workerd.add_history_days(ARRAY[604800.0::float8])")
    await connection.execute(FILL, JOBS, timeout=600)
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
        finally:
            embedded.stop_if_unused(home)


if __name__ == "__main__":
    main()
