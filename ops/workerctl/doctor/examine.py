"""Everything that is looked at, in order: what needs no database first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.doctor import assistant, daemon, directories, memory, settings, tasks
from workerctl.doctor.manager import manager

if TYPE_CHECKING:
    from workerctl.doctor.finding import Finding


async def examine(*, thorough: bool) -> list[Finding]:
    """What `check` finds; `thorough`: what `doctor` does. Settings that cannot be used are the only findings."""
    loaded, found = settings.load()
    if loaded is None:
        return found
    given = loaded.settings
    found += directories.writable(given)
    if thorough:
        found += [*directories.room(given), *memory.memory(given), *daemon.daemon(given), *assistant.assistant(given)]
    found += tasks.tasks(given)
    if given.manager_url is not None:
        found += await manager(given)
    if given.manager_url is None or given.database_url is not None:
        from workerctl.doctor.database import database

        found += await database(given, thorough=thorough)
    return found
