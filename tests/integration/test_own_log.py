"""Daemons whose application configures Python's logging as if the process were its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import until_state

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from tests.support import Ctl
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]

APPLICATION = """
import logging.config
from workerd import Job, task

def configure():
    logging.config.dictConfig({
        "version": 1,
        "handlers": {"console": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}},
        "root": {"handlers": ["console"], "level": "INFO"},
    })

configure()

@task(retry=0)
async def on_loop(name: str, *, job: Job) -> None:
    _work(name, job)
    configure()

@task(retry=0)
def in_thread(name: str, *, job: Job) -> None:
    _work(name, job)

@task(retry=0, cpu=True)
def in_child(name: str, *, job: Job) -> None:
    _work(name, job)

def _work(name, job):
    logging.getLogger(f"shop.{job.id}").warning("theirs %s", name)  # one that no configuration has disabled yet
    job.log(f"kept {name}")
    print("printed", name)
    if name == "bad":
        raise ValueError("boom")
"""


@pytest.mark.long
async def test_an_application_that_configures_logging_loses_no_line_of_the_daemon(
    ctl: Ctl, queue: Queue, db: DB, tmp_path: Path
) -> None:
    (ctl.directory / "application.py").write_text(APPLICATION)
    ctl.environment |= {"TASKS": "application", "APP_DIR": str(ctl.directory), "LOG_JOBS": "all"}
    started = ctl("start", "1")
    assert started.returncode == 0, started.stderr
    jobs: dict[int, list[str]] = {}
    for task in ("on_loop", "in_thread", "in_child"):
        good, bad = await queue.enqueue(task, {"name": "good"}), await queue.enqueue(task, {"name": "bad"})
        await until_state(db, good, "succeeded")
        await until_state(db, bad, "failed")
        jobs |= {good: ["theirs good", "kept good", "printed good"], bad: ["theirs bad", "kept bad", "printed bad"]}
    assert ctl("stop").returncode == 0
    lines = said(tmp_path / "log" / "worker.log")
    for job, expected in jobs.items():
        own = [line["message"] for line in lines if line.get("job") == job]
        assert [message for message in own if message in expected] == expected
    assert [line["message"] for line in lines if line["message"] == "ready"] == ["ready"]
    errors = said(tmp_path / "log" / "worker.error.log")
    failures = [line["job"] for line in errors if line.get("ending") == "failed"]
    assert failures == [job for job, expected in jobs.items() if "kept bad" in expected]
    assert lines[-1]["message"].startswith("stopped")


def said(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
