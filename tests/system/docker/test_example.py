"""The example's web application beside the workers, and backups of what it enqueues."""

from __future__ import annotations

import asyncio
import json
import zipfile
from http.client import HTTPConnection
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.support import until
from tests.system.docker.stack import LABEL, Stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.docker.engine import Engine

pytestmark = pytest.mark.system


@pytest.fixture
def example(engine: Engine, variables: dict[str, str]) -> Iterator[Stack]:
    given = {**variables, "WEB_PORT": "0", "BACKUP_INTERVAL": "2s", "BACKUP_KEEP": "2"}
    made = Stack(
        engine, f"workerd-test-{uuid4().hex[:8]}", given, "local-db,backup", f"docker/example/compose.yaml:{LABEL}"
    )
    try:
        made.up()
        yield made
    finally:
        made.down()


def greet(address: str, name: str) -> int:
    """POST as a browser does; returns the id of the job."""
    connection = HTTPConnection(address, timeout=60)
    connection.request("POST", "/greetings", json.dumps({"name": name}))
    job: int = json.load(connection.getresponse())["job"]
    connection.close()
    return job


def backups(stack: Stack) -> list[str]:
    return stack.compose(
        "exec", "-T", "backup", "sh", "-c", "ls /var/backups/worker | grep '^workerd-.*zip$' || true"
    ).split()


async def test_a_web_application_enqueues_by_sql_and_the_queue_is_backed_up(example: Stack, tmp_path: Path) -> None:
    job = await asyncio.to_thread(greet, example.address("web", 8080), "Ada")
    waited = example.compose("exec", "-T", "worker", "workerctl", "jobs", "wait", str(job), "--timeout", "30s")
    assert "Hello Ada" in waited
    first = backups(example)

    async def renewed() -> list[str]:
        found = backups(example)
        return found if len(found) == 2 and not set(found) & set(first) else []

    newest = (await until(renewed, "two backups replace the first ones"))[-1]
    example.compose("cp", f"backup:/var/backups/worker/{newest}", str(tmp_path / newest))
    with zipfile.ZipFile(tmp_path / newest) as archive:
        assert "Hello Ada" in archive.read("queue.sql").decode()
