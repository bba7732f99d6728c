"""An app of pm2 (pm2.keymetrics.io)."""

from __future__ import annotations

import json
import os
from pathlib import Path

from workerctl.install import packed
from workerctl.install.kept import FILES, Kept, with_line
from workerctl.install.target import File


class Pm2(Kept):
    name = "pm2"
    keeper = "pm2"
    package = "npm install -g pm2"

    @property
    def next_step(self) -> str:
        return f"pm2 start {self._own_places()[0]} && pm2 save; once for each host: pm2 startup, and what it prints"

    def _own_file(self) -> File:
        values = {
            "name": self.settings.name,
            "script": str(self.script),
            "cwd": str(self.directory),
            "kill_timeout": round(self.patience * 1000),
        }
        text = packed.text(f"{FILES}/pm2.config.js")
        for key, value in values.items():
            text = with_line(text, rf'      {key}: ("[^"]*"|\d+),', f"      {key}: {json.dumps(value)},")
        return File(self._own_places()[0], text)

    def _own_places(self) -> list[Path]:
        return [self.folder / f"{self.settings.name}.config.js"]

    def _stop(self) -> None:
        self.tell("delete", self.settings.name)

    def _forget(self) -> None:
        if self.settings.name in _saved():
            self.tell("save", "--force")


def _saved() -> list[str]:
    """The names of what pm2 starts with the host."""
    home = Path(os.environ.get("PM2_HOME") or Path.home() / ".pm2")
    try:
        return [each.get("name", "") for each in json.loads((home / "dump.pm2").read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        return []
