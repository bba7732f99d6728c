"""Which runtime a command means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.runtimes.docker import Docker
from workerctl.runtimes.local import Local
from workerctl.runtimes.systemd import Systemd
from workerd.errors import ConfigError

if TYPE_CHECKING:
    from workerctl.runtimes.runtime import Runtime
    from workerd.config import Settings

# in the order in which they are asked; the first of them is the one where none has the daemon
RUNTIMES: dict[str, type[Runtime]] = {"local": Local, "systemd": Systemd, "docker": Docker}


def choose(settings: Settings, flags: list[str], wanted: str | None) -> Runtime:
    """The runtime that is wanted, else the first one that has a daemon of this name. Raises ConfigError for one that is unknown."""
    if wanted is not None and wanted not in RUNTIMES:
        raise ConfigError(f"--runtime is {wanted!r}, allowed are {', '.join(RUNTIMES)}")
    if wanted is not None:
        return RUNTIMES[wanted](settings, flags)
    candidates = [runtime(settings, flags) for runtime in RUNTIMES.values()]
    return next((each for each in candidates if each.is_there()), candidates[0])
