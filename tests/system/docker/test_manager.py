"""The profile `manager`: the page and the API answer on this host, with a token that was made at the first start."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import pytest

from tests.support import LIMIT
from tests.system.docker.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.docker.engine import Engine

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def stack(engine: Engine, variables: dict[str, str]) -> Iterator[Stack]:
    """A worker, its local database and a manager, healthy."""
    given = {**variables, "MANAGER_PORT": "0"}
    made = Stack(engine, f"workerd-test-{uuid4().hex[:8]}", given, "local-db,manager")
    try:
        made.up()
        yield made
    finally:
        made.down()


def _client(stack: Stack, token: str) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://{stack.address('manager', 8000)}", headers={"Authorization": f"Bearer {token}"}, timeout=LIMIT
    )


def _first_token(stack: Stack) -> str:
    return stack.compose("exec", "-T", "manager", "cat", "/var/lib/worker/manager-token").strip()


def test_it_lets_in_whoever_has_the_first_token_and_lists_the_worker(stack: Stack) -> None:
    token = _first_token(stack)
    assert token not in stack.compose("logs", "manager")
    assert "manager cat /var/lib/worker/manager-token" in stack.compose("logs", "manager")
    with _client(stack, token) as client:
        assert [node["state"] for node in client.get("/api/v1/nodes").json()] == ["alive"]
        job = client.post("/api/v1/jobs", json={"task": "echo", "payload": {"value": 1}}).json()["id"]
        assert client.get(f"/api/v1/jobs/{job}").json()["task"] == "echo"
        assert client.get("/login").status_code == 200
    with _client(stack, "another") as client:
        assert client.get("/api/v1/nodes").status_code == 401


def test_a_new_container_takes_the_tokens_that_there_are(stack: Stack) -> None:
    token = _first_token(stack)
    stack.up("--force-recreate", "manager")
    assert _first_token(stack) == token
    with _client(stack, token) as client:
        assert client.get("/api/v1/jobs").status_code == 200
    assert "the first token" not in stack.compose("logs", "manager")
