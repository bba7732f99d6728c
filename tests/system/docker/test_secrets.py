"""The directory of secrets, as docs/docker.md makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.system.docker import engine as engines
from tests.system.docker.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.docker.engine import Engine

pytestmark = pytest.mark.system

ADDRESS = "postgresql://worker:chosen@local-db/worker?sslmode=disable"


@pytest.fixture
def secrets(engine: Engine, variables: dict[str, str], tmp_path: Path) -> Path:
    """With `database_url`, which the user of the image and its group may read; by a container, so that it takes no root here."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o755)
    put = f"echo '{ADDRESS}' | install -m 0440 -o 10001 -g 10001 /dev/stdin /secrets/database_url"
    mount = ("--volume", f"{folder}:/secrets")
    engine.run("run", "--rm", "--user", "0", "--network", "none", *mount, variables["WORKER_IMAGE"], "sh", "-c", put)
    return folder


@pytest.fixture
def given(engine: Engine, variables: dict[str, str]) -> Iterator[Stack]:
    images = engines.make_monitoring(engine, variables["BASE"]) if engine.stand_ins else {}
    made = Stack(engine, f"workerd-test-{uuid4().hex[:8]}", {**variables, **images}, "local-db,monitoring")
    yield made
    made.down()


def test_workers_and_exporter_read_them_and_another_directory_does_not_lock_them_out(
    given: Stack, secrets: Path
) -> None:
    services = ("local-db", "worker", "exporter")
    given.up(*services, SECRETS_DIR=str(secrets))
    assert given.compose("exec", "-T", "worker", "cat", "/run/secrets/database_url").strip() == ADDRESS
    given.compose("down")
    given.up(*services)  # on the same data, but with the volume of secrets, which is empty
    assert given.compose("exec", "-T", "worker", "cat", "/run/secrets/database_url").strip() == ADDRESS
