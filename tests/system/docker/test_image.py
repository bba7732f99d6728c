"""The worker's image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.docker.image import build

if TYPE_CHECKING:
    from tests.system.docker.engine import Engine

pytestmark = pytest.mark.system

LARGEST = 200e6  # bytes over its base


@pytest.fixture
def image(engine: Engine, variables: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.run("image", "inspect", variables["WORKER_IMAGE"]))[0]
    return found


def test_it_is_small_and_its_user_is_not_root(engine: Engine, variables: dict[str, str], image: dict[str, Any]) -> None:
    base = json.loads(engine.run("image", "inspect", variables.get("BASE", "python:3.11-slim-bookworm")))[0]
    assert image["Size"] - base["Size"] < LARGEST
    assert image["Config"]["User"] == "10001:10001"


def test_the_same_sources_make_the_same_layers(
    engine: Engine, variables: dict[str, str], image: dict[str, Any]
) -> None:
    again = variables | {"WORKER_IMAGE": "workerd-test-again"}
    build(engine, again, "--no-cache")
    second = json.loads(engine.run("image", "inspect", again["WORKER_IMAGE"]))[0]
    engine.run("image", "rm", again["WORKER_IMAGE"])
    assert second["Id"] != image["Id"]
    assert second["RootFS"]["Layers"] == image["RootFS"]["Layers"]


def test_it_holds_no_tools_to_build_with(engine: Engine, variables: dict[str, str]) -> None:
    look = "command -v gcc cc make; ls /opt/worker/bin /opt/worker/lib/python*/site-packages | grep -xE 'pip.*|setuptools|hatch.*'"
    assert engine.done("run", "--rm", "--network", "none", variables["WORKER_IMAGE"], "sh", "-c", look).stdout == ""


def test_without_a_database_it_says_so_at_once(engine: Engine, variables: dict[str, str]) -> None:
    done = engine.done("run", "--rm", "--network", "none", variables["WORKER_IMAGE"])
    said = [line for line in done.stderr.splitlines() if line.startswith("workerd: ")]
    assert done.returncode == 1
    assert len(said) == 1
    assert "DATABASE_URL is not set" in said[0]


def test_its_own_command_line_operates_it(engine: Engine, variables: dict[str, str]) -> None:
    shown = json.loads(
        engine.run("run", "--rm", "--network", "none", variables["WORKER_IMAGE"], "workerctl", "config", "--json")
    )
    assert shown["STATE_DIR"]["value"] == "/var/lib/worker"
