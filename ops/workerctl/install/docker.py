"""Services of Docker Compose: the project's as they lie, without its sources, and over them what is this installation's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from workerctl.install import env_file, packed
from workerctl.install.target import File, Target
from workerd.errors import ConfigError, WorkerdError

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = "docker"
FOLDERS = ("alertmanager", "grafana", "postgres", "prometheus")  # that its services mount
IMAGE = "worker"  # as it is called there
GRACE = 20  # seconds beyond the drain, as there
HEAD = "# Settings of the workers (docs/settings.md) and variables of compose.yaml (docs/docker.md).\nCOMPOSE_PROJECT_NAME=worker\n"


class Docker(Target):
    name = "docker"
    is_system = False
    image: str | None = None  # None: one that is called IMAGE

    @property
    def folder(self) -> Path:
        return self.to or Path.cwd() / "docker"

    @property
    def next_step(self) -> str:
        database = "" if self.settings.database_url else " --profile local-db"
        return f"cd {self.folder} && docker compose{database} up --detach --wait"

    def files(self) -> list[File]:
        mounted = (f"{folder}/{name}" for folder in FOLDERS for name in packed.names(f"{FILES}/{folder}"))
        return [
            File(self.folder / ".env", self._settings_text(), 0o600, shown=env_file.without_secrets),
            File(self.folder / "compose.yaml", _adapted(packed.text(f"{FILES}/compose.yaml"))),
            *(File(self.folder / name, packed.text(f"{FILES}/{name}"), _mode(name)) for name in mounted),
        ]

    def warnings(self) -> list[str]:
        found = [] if self.image else [f"the image is called {IMAGE}: build one of that name, or give --image"]
        if self.configuration.sources["tasks"] != "default":
            found.append("the modules of TASKS have to be in /app of the image, or mounted there (docs/docker.md)")
        return found

    def remove(self) -> list[str]:
        raise WorkerdError(
            f"what runs is Docker's: `docker compose --profile '*' down` in {self.folder}, then remove that folder"
        )

    def _settings_text(self) -> str:
        """The file that lies there, which is the operator's, with the settings that are given now; else a new one."""
        path = self.folder / ".env"
        return env_file.filled(path.read_text(encoding="utf-8") if path.exists() else HEAD, dict(self._given()))

    def _given(self) -> Iterator[tuple[str, str]]:
        if self.image:
            yield "WORKER_IMAGE", self.image
        if self.configuration.sources["drain_timeout"] != "default":
            yield "STOP_GRACE_PERIOD", f"{self.settings.drain_timeout + GRACE:g}s"
        for key, value in env_file.entries(self.configuration).items():
            if "$" in value:
                raise ConfigError(
                    f"{key} has a $, which compose takes for a variable: put it into a file of SECRETS_DIR (docs/docker.md)"
                )
            if key not in env_file.OWN_OF_CONTAINERS:
                yield key, value


def _adapted(compose: str) -> str:
    """As it lies in the project, for a folder without the project's sources."""
    text = re.sub(r"(?m)^  build:\n(?:    .*\n)+", "", compose)
    return text.replace("path: ../.env", "path: .env").replace(
        "the .env beside the compose.yaml at the top", "the .env beside it"
    )


def _mode(name: str) -> int:
    return 0o755 if name.endswith(".sh") else 0o644
