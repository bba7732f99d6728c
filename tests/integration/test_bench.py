"""`workerctl bench` on a small number of jobs: it measures everything and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support import until

if TYPE_CHECKING:
    import asyncpg

    from tests.support import Ctl

    DB = asyncpg.Connection[asyncpg.Record]

FIGURES = {
    "drain_jobs",
    "drain_jobs_kept",
    "drain_many",
    "drain_many_kept",
    "drain_many_kept_memory",
    "drain_jobs_running",
    "drain_jobs_wal",
    "drain_jobs_kept_wal",
    "drain_one",
    "drain_four",
    "drain_four_ratio",
    "spread",
    "ones_share",
    "ones_lock_p50",
    "ones_lock_p99",
    "drain_old_snapshot",
    "drain_old_snapshot_ratio",
    "drain_old_xid_ratio",
    "enqueue_single",
    "enqueue_transaction",
    "enqueue_transaction_jobs",
    "enqueue_coroutines",
    "enqueue_many",
    "enqueue_many_transaction",
    "latency_p50",
    "latency_p99",
    "latency_busy_p99",
    "backlog_scheduled_ratio",
    "backlog_other_queue_ratio",
    "backlog_history_ratio",
}


async def _databases(db: DB) -> list[str]:
    rows = await db.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'workerd\\_bench\\_%'")
    return [row["datname"] for row in rows]


def _daemons(server: str) -> list[int]:
    """The PIDs of daemons on a database that a benchmark has made on this server."""
    head, mark, query = server.partition("?")
    start, end = head.rpartition("/")[0] + "/workerd_bench_", mark + query  # an embedded server is told by its socket
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            address = process.environ().get("DATABASE_URL", "")
            if address.startswith(start) and address.endswith(end):
                found.append(process.pid)
    return found


async def _all_gone(server: str) -> None:
    """What a daemon has started to watch over its children needs a moment to see that it has gone."""

    async def gone() -> bool:
        return not _daemons(server)

    await until(gone, "no daemon is left")


async def test_it_measures_everything_and_leaves_nothing(ctl: Ctl, db: DB, server: str) -> None:
    groups = "drain,fleet,snapshot,enqueue,latency,backlog"
    done = ctl("bench", "--repeat", "1", "--jobs", "100", "--only", groups, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["figures"].keys() >= FIGURES
    latencies = {
        key for key in report["figures"] if key.startswith("latency_")
    }  # a start may come before the commit is known
    assert {len(figure["runs"]) for figure in report["figures"].values()} == {1}, "so small a one tries nothing again"
    assert [key for key in report["figures"].keys() - latencies if report["figures"][key]["min"] <= 0] == []
    assert report["machine"]["cores"] == os.cpu_count()
    assert report["server"]["fsync"] in ("on", "off")
    assert await _databases(db) == []
    await _all_gone(server)


async def test_only_what_is_asked_for_as_markdown(ctl: Ctl) -> None:
    done = ctl("bench", "--repeat", "2", "--jobs", "100", "--only", "enqueue", "--markdown")
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].split(",")[1].strip() for line in table[2:]] == [
        "one awaited at a time",
        "each in a transaction of the caller",
        "100 awaited in turn in each transaction of the caller",
        "100 coroutines",
        "in one call",
        "in one call in a transaction of the caller",
    ]


@pytest.mark.long  # installs it; tests/unit/test_contest.py has the pairs without
async def test_a_peer_is_measured_beside_workerd_in_pairs(ctl: Ctl, db: DB, server: str, tmp_path: Path) -> None:
    done = ctl(
        "bench",
        "--repeat",
        "2",
        "--jobs",
        "200",
        "--only",
        "drain,enqueue,latency",
        "--peer",
        "pgqueuer",
        "--json",
        XDG_CACHE_HOME=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    if "PgQueuer" in report["skipped"]:
        pytest.skip(f"PgQueuer: {report['skipped']['PgQueuer']}")
    figures = report["figures"]
    enqueues = {key for key in FIGURES if key.startswith("enqueue_")}
    for key in ("drain_jobs", "drain_jobs_kept", "drain_many", *enqueues, "latency_p50", "latency_p99"):
        ours, theirs = figures[key]["runs"], figures[f"{key.removesuffix('_kept')}_pgqueuer"]["runs"]
        assert figures[f"{key}_vs_pgqueuer"]["runs"] == [one / other for one, other in zip(ours, theirs, strict=True)]
        assert ("lower is better" in figures[f"{key}_vs_pgqueuer"]["who"]) == key.startswith("latency_")
    assert report["versions"]["PgQueuer"] == "1.6.0"
    assert await _databases(db) == []
    await _all_gone(server)


async def test_a_peer_that_cannot_be_installed_is_named_and_the_others_are_measured(ctl: Ctl, tmp_path: Path) -> None:
    cache = tmp_path / "file"
    cache.touch()  # no folder can be made in it
    done = ctl(
        "bench",
        "--repeat",
        "1",
        "--jobs",
        "100",
        "--only",
        "enqueue",
        "--peer",
        "pgqueuer",
        "--markdown",
        XDG_CACHE_HOME=str(cache),
    )
    assert done.returncode == 0, done.stderr
    assert "- skipped PgQueuer: " in done.stdout
    assert "| workerd |" in done.stdout


async def test_peers_are_named_as_the_report_names_them_and_no_other_is_measured(ctl: Ctl, tmp_path: Path) -> None:
    cache = tmp_path / "file"
    cache.touch()  # so that each peer that is asked for is named as skipped
    done = ctl(
        "bench",
        "--repeat",
        "1",
        "--jobs",
        "100",
        "--only",
        "enqueue",
        "--peers",
        "--peer",
        "PgQueuer",
        "--peer",
        "AWA-pg",
        "--json",
        XDG_CACHE_HOME=str(cache),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["skipped"].keys() == {"PgQueuer", "awa-pg"}


async def test_wrong_usage_is_refused_before_anything_is_made(ctl: Ctl, db: DB) -> None:
    done = ctl("bench", "--only", "drain,speed")
    assert done.returncode == 2
    assert "speed" in done.stderr
    assert ctl("bench", "--markdown", "--json").returncode == 2
    assert ctl("bench", "--peer", "cron").returncode == 2
    assert await _databases(db) == []


async def test_ctrl_c_leaves_nothing(ctl: Ctl, db: DB, server: str) -> None:
    bench = subprocess.Popen(
        [sys.executable, "-m", "workerctl", "bench"],
        cwd=ctl.directory,
        env={**os.environ, **ctl.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background job ignores it, and so would we
    )

    async def measures() -> bool:
        return bool(_daemons(server))

    await until(measures, "a daemon of the benchmark runs")
    bench.send_signal(signal.SIGINT)
    _, said = bench.communicate(timeout=60)
    assert bench.returncode == 130, said
    assert await _databases(db) == []
    await _all_gone(server)


async def test_without_a_server_it_starts_one_and_removes_it(ctl: Ctl) -> None:
    with tempfile.TemporaryDirectory(prefix="wd-") as folder:
        done = ctl(
            "bench", "--repeat", "1", "--jobs", "100", "--only", "enqueue", "--json", DATABASE_URL="", TMPDIR=folder
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["server"] == dict.fromkeys(
            ("fsync", "synchronous_commit", "full_page_writes"), "on"
        )
        assert list(Path(folder).iterdir()) == []
        assert [process.pid for process in psutil.process_iter() if folder in " ".join(_command(process))] == []


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []
