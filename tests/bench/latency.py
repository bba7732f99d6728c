"""How soon an idle daemon starts a job after its commit, and what the daemon costs while idle.

`python tests/bench/latency.py [--jobs 200]` on DATABASE_URL, else on an embedded PostgreSQL of its own. Prints one JSON line:
milliseconds from commit to start (median, p95, p99), resident megabytes and CPU percent of the idle daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.support import DaemonProcess
from workerd import Queue, embedded
from workerd.settings import Settings

IDLE = 10.0  # seconds over which the idle daemon is measured


async def measure(dsn: str, process: psutil.Process, jobs: int) -> dict[str, float]:
    process.cpu_percent()
    await asyncio.sleep(IDLE)
    idle = {"idle_rss_mb": round(process.memory_info().rss / 1e6, 1), "idle_cpu_percent": process.cpu_percent()}
    waits = []
    async with Queue.connect(dsn) as queue, queue.connection() as connection:
        for _ in range(jobs):
            job = await queue.enqueue("cleanup_files", {"days": 30})
            committed = time.time()
            await queue.result(job, timeout=30)
            started = await connection.fetchval("SELECT started_at FROM workerd.job WHERE id = $1", job)
            waits.append(1000 * (started.timestamp() - committed))
    ranked = sorted(waits)
    return {
        "jobs": jobs,
        "median_ms": round(statistics.median(ranked), 2),
        "p95_ms": round(ranked[int(jobs * 0.95)], 2),
        "p99_ms": round(ranked[int(jobs * 0.99)], 2),
        **idle,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory(prefix="wd-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        given = os.environ.get("DATABASE_URL")
        dsn = given or embedded.start(home)
        settings = Settings(
            database_url=dsn, tasks=("invoices",), state_dir=home, runtime_dir=home / "run", log_dir=home / "log"
        )
        try:
            with DaemonProcess(settings) as daemon:
                daemon.start()
                assert daemon.process is not None
                print(json.dumps(asyncio.run(measure(dsn, psutil.Process(daemon.process.pid), jobs))))
        finally:
            if given is None:
                embedded.stop_if_unused(home)


if __name__ == "__main__":
    main()
