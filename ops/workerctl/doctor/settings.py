"""The settings: all mistakes at once, and what looks like one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl import context
from workerctl.doctor.finding import Finding, ok, problem, warning
from workerd.errors import ConfigError

if TYPE_CHECKING:
    from workerd.config import Configuration


def load() -> tuple[Configuration | None, list[Finding]]:
    """The settings if they can be used."""
    try:
        loaded = context.configuration()
    except ConfigError as error:
        return None, [problem("settings", each, "correct it where it was read") for each in error.problems]
    odd = [warning("settings", each, "correct it, or remove it") for each in loaded.warnings]
    return loaded, odd or [ok("settings")]
