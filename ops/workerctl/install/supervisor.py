"""A program of supervisor (supervisord.org)."""

from __future__ import annotations

import math
import os
import pwd
import shlex
from functools import cached_property
from pathlib import Path

from workerctl.install import packed
from workerctl.install.kept import FILES, Kept, with_line
from workerctl.install.target import File

INCLUDED = {Path("/etc/supervisor/conf.d"): ".conf", Path("/etc/supervisord.d"): ".ini"}  # as distributions have it


class Supervisor(Kept):
    name = "supervisor"
    keeper = "supervisorctl"
    package = "pip install supervisor, or apt install supervisor"

    @property
    def next_step(self) -> str:
        included = self._own_places()[0].parent in INCLUDED
        first = "" if included else f"name {self.folder}/*.conf in [include] of supervisord.conf, then "
        return f"{first}supervisorctl update {self.settings.name}"

    @cached_property
    def user(self) -> pwd.struct_passwd:
        """Whose the application's folder is, where we are root."""
        return pwd.getpwuid(
            self.directory.stat().st_uid if os.geteuid() == 0 and self.directory.exists() else os.geteuid()
        )

    def _own_file(self) -> File:
        values = {
            "command": shlex.quote(str(self.script)),
            "directory": str(self.directory),
            "user": self.user.pw_name,
            "environment": f'HOME="{self.user.pw_dir}",USER="{self.user.pw_name}"',
            "stopwaitsecs": str(math.ceil(self.patience)),
        }
        text = packed.text(f"{FILES}/supervisor.conf").replace("[program:worker]", f"[program:{self.settings.name}]")
        for key, value in values.items():
            text = with_line(text, rf"{key}=.*", f"{key}={value.replace('%', '%%')}")
        return File(self._own_places()[0], text)

    def _own_places(self) -> list[Path]:
        there = [] if self.to or os.geteuid() else [folder for folder in INCLUDED if folder.is_dir()]
        return [folder / f"{self.settings.name}{INCLUDED[folder]}" for folder in there] or [
            self.folder / f"{self.settings.name}.conf"
        ]

    def _stop(self) -> None:
        self.tell("stop", self.settings.name)

    def _forget(self) -> None:
        self.tell("update", self.settings.name)
