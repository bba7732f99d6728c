"""Which runtime a command means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerd.errors import ConfigError

if TYPE_CHECKING:
    from workerctl.runtimes.runtime import Runtime
    from workerd.config import Settings

# in the order in which they are asked; the first of them is the one where none has the daemon
RUNTIMES = ("local", "systemd", "docker")


def choose(settings: Settings, flags: list[str], wanted: str | None) -> Runtime:
    """The runtime that is wanted, else the first one that has a daemon of this name. Raises ConfigError for one that is unknown."""
    if wanted is not None and wanted not in RUNTIMES:
        raise ConfigError(f"--runtime is {wanted!r}, allowed are {', '.join(RUNTIMES)}")
    if wanted is not None:
        return _runtime(wanted)(settings, flags)
    candidates = (_runtime(name)(settings, flags) for name in RUNTIMES)
    first = next(candidates)
    return first if first.is_there() else next((each for each in candidates if each.is_there()), first)


def _runtime(name: str) -> type[Runtime]:
    """Imports it: who has found the daemon needs no other."""
    if name == "local":
        from workerctl.runtimes.local import Local

        return Local
    if name == "systemd":
        from workerctl.runtimes.systemd import Systemd

        return Systemd
    from workerctl.runtimes.docker import Docker

    return Docker
