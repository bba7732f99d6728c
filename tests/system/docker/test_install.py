"""What `workerctl install docker` writes, in the hands of a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.system.docker.stack import HEALTH, LABEL, Stack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Ctl
    from tests.system.docker.engine import Engine

pytestmark = pytest.mark.system


def test_it_comes_up_in_a_folder_without_the_sources(
    engine: Engine, variables: dict[str, str], ctl: Ctl, tmp_path: Path
) -> None:
    folder = tmp_path / "services"
    ctl.environment.clear()
    done = ctl("install", "docker", "--to", str(folder), "--workers", "3", "--image", variables["WORKER_IMAGE"])
    assert (done.returncode, done.stderr) == (0, "")
    assert f"cd {folder} && docker compose --profile local-db up" in done.stdout
    here = {"COMPOSE_FILE": f"{folder}/compose.yaml:{HEALTH}:{LABEL}", "COMPOSE_ENV_FILES": f"{folder}/.env"}
    stack = Stack(engine, f"workerd-test-{uuid4().hex[:8]}", {**variables, **here})
    try:
        stack.up()
        assert "3, 0 busy" in stack.compose("exec", "-T", "worker", "workerctl", "status")
    finally:
        stack.down()
