"""The launch: how this process was started, and how another one like it is."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerd.daemon.children.process import NOT_INHERITED
from workerd.daemon.parent import SUCCEEDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from workerd.config import Configuration

# what concerns a service's main process
SUPERVISED = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY", "PWD"})


@dataclass(frozen=True)
class Launch:
    """How this process was started, to start another one in the same way; `load` reads the settings anew."""

    arguments: Sequence[str]
    load: Callable[[], Configuration]
    environment: dict[str, str]
    directory: Path = field(default_factory=lambda: working_directory())
    flags: Mapping[str, str] = field(default_factory=dict)  # settings by name, secrets too
    file: Path | None = None  # named by --config

    def told(self) -> dict[str, Any]:
        """What a restart needs to keep the flags. It has secrets."""
        return {
            "directory": str(self.directory),
            "flags": dict(self.flags),
            "config": None if self.file is None else str(self.file),
        }

    def renewed(self, environment: dict[str, str]) -> Launch:
        """The same with the environment that our supervisor gives its processes now; what concerns this very process stays."""
        ours = {name: value for name, value in self.environment.items() if name in SUPERVISED}
        theirs = {name: value for name, value in environment.items() if name not in NOT_INHERITED}
        return replace(self, environment={**theirs, **ours})

    def run(self, end: int) -> subprocess.Popen[bytes]:
        """Start a process that inherits this file descriptor."""
        environment = {**self.environment, SUCCEEDS: str(end)}
        return subprocess.Popen(
            [sys.executable, "-m", "workerd", *self.arguments],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=[end],
        )


def working_directory() -> Path:
    """Where we were started, by the name that was given: a link may lead to another release by now."""
    named = Path(os.environ.get("PWD", ""))
    here = Path.cwd()
    return named if named.is_absolute() and named.exists() and named.samefile(here) else here
