"""The project's compose.yaml, brought up by tests."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.support import ROOT

if TYPE_CHECKING:
    import subprocess

    from tests.system.docker.engine import Engine

OVERLAY = "tests/system/docker/overlay.yaml"
HEALTH = ROOT / "tests/system/docker/health.yaml"
LABEL = ROOT / "tests/system/docker/label.yaml"


class Stack:
    """One compose project, with tasks of the tests."""

    def __init__(
        self,
        engine: Engine,
        project: str,
        variables: dict[str, str],
        profiles: str = "local-db",
        overlay: str = f"{OVERLAY}:{LABEL}",
    ) -> None:
        self._engine = engine
        self.project = project
        self._variables = {
            "COMPOSE_PROJECT_NAME": project,
            "COMPOSE_PROFILES": profiles,
            "COMPOSE_ENV_FILES": "/dev/null",
            "COMPOSE_FILE": f"compose.yaml:{overlay}:{HEALTH}",
            **variables,
        }

    def compose(self, *words: str, **variables: str) -> str:
        return self._engine.run("compose", *words, **{**self._variables, **variables})

    def tried(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command that may fail."""
        return self._engine.done("compose", *words, **{**self._variables, **variables})

    def docker(self, *words: str) -> str:
        return self._engine.run(*words)

    def up(self, *words: str, **variables: str) -> None:
        """Returns when all of it is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", "400", "--no-build", *words, **variables)

    def scale(self, count: int) -> None:
        """Returns when docker has started and stopped what it takes."""
        self.compose("up", "--detach", "--no-recreate", "--no-build", "--scale", f"worker={count}", "worker")

    def down(self) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "10")

    def workers(self) -> list[dict[str, Any]]:
        """What docker tells about the containers of the workers, stopped ones too."""
        ids = self.compose("ps", "--all", "--quiet", "worker").split()
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", *ids)) if ids else []
        return found

    def address(self, service: str, port: int) -> str:
        """Where on this side of the network a port of the service is reached: docker chose a free one."""
        return self.compose("port", service, str(port)).strip()

    @property
    def dsn(self) -> str:
        """The address of the local database for this side of the network."""
        secret = self.compose("exec", "-T", "local-db", "cat", "/run/secrets/database_url").strip()
        return re.sub(r"@[^/]*", f"@{self.address('local-db', 5432)}", secret)
