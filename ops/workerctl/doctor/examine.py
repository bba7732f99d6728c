"""Everything that is looked at, in order: what needs no database first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.doctor import assistant, daemon, directories, memory, settings, tasks
from workerctl.doctor.finding import Finding, failed
from workerctl.doctor.manager import manager

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workerd.settings import Settings

    Look = Callable[[Settings], list[Finding]]

# Of this host: for the start of a daemon, and for one that works.
FOR_START: Mapping[str, Look] = {"directories": directories.writable, "tasks": tasks.tasks}
FOR_WORK: Mapping[str, Look] = {
    "disk": directories.room,
    "memory": memory.memory,
    "daemon": daemon.daemon,
    "assistant": assistant.assistant,
}


async def examine(*, thorough: bool) -> list[Finding]:
    """What `check` finds; `thorough`: what `doctor` does. Settings that cannot be used are the only findings."""
    loaded, found = settings.load()
    if loaded is None:
        return found
    given = loaded.settings
    for name, look in {**FOR_START, **(FOR_WORK if thorough else {})}.items():
        try:
            found += look(given)
        except Exception as error:  # noqa: BLE001 - one check that fails does not hide what the others find
            found.append(failed(name, error))
    if given.manager_url is not None:
        found += await manager(given)
    if given.manager_url is None or given.database_url is not None:
        from workerctl.doctor.database import database

        found += await database(given, thorough=thorough)
    return found
