"""The setup: what the next daemon is started with, read anew each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workerctl import context
from workerctl.dev.sources import Sources

if TYPE_CHECKING:
    from workerd.settings import Settings

DRAIN_TIMEOUT = 0.3  # seconds that running jobs have to end when the code changes


@dataclass(frozen=True)
class Setup:
    """`flags` are those of `workerd`."""

    settings: Settings
    sources: Sources
    flags: tuple[str, ...]

    @classmethod
    def read(cls) -> Setup:
        """One worker unless told otherwise; jobs are given back soon unless the command line says otherwise. Raises ConfigError."""
        found = context.configuration()
        flags = context.flags()
        if found.sources["workers"] == "default":
            flags.append("--workers=1")
        if not context.given("drain_timeout"):
            flags.append(f"--drain-timeout={DRAIN_TIMEOUT}")
        return cls(found.settings, Sources.of(found.settings, context.settings_file()), tuple(flags))
