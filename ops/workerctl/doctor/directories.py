"""The directories: can they be written, and is there room?"""

from __future__ import annotations

import shutil
import tempfile
from typing import TYPE_CHECKING

from workerctl.doctor.finding import Finding, ok, problem, warning

if TYPE_CHECKING:
    from pathlib import Path

    from workerd.settings import Settings

LITTLE = 2**30  # bytes of free room below which there is a warning, unless that is a tenth of the disk
NOTHING = 50 * 2**20  # bytes below which writing fails soon
SHARE = 0.1


def writable(settings: Settings) -> list[Finding]:
    """Each directory that the daemon writes into."""
    return [
        ok(name)
        if _writable(folder)
        else problem(name, f"{folder} is not writable", f"set {name} to another directory")
        for name, folder in _folders(settings).items()
    ]


def room(settings: Settings) -> list[Finding]:
    """Free room for logs and for what is kept in the state directory; one finding for each disk."""
    by_disk: dict[int, list[str]] = {}
    for name, folder in _folders(settings).items():
        if name != "RUNTIME_DIR":  # a PID file and a socket
            by_disk.setdefault(_existing(folder).stat().st_dev, []).append(name)
    rooms = [(names, _existing(_folders(settings)[names[0]])) for names in by_disk.values()]
    usages = [(names, folder, shutil.disk_usage(folder)) for names, folder in rooms]
    return [judge_room(names, folder, usage.free, usage.total) for names, folder, usage in usages if usage.total]


def judge_room(names: list[str], folder: Path, free: int, total: int) -> Finding:
    """By the free bytes of a disk and its size."""
    told = f"{free / 2**30:,.1f} of {total / 2**30:,.1f} GB are free"
    where = f"the disk of {' and '.join(names)} ({folder})"
    advice = f"free some room, or set {' and '.join(names)} to another disk"
    if free < NOTHING:
        return problem("disk", f"{where} is full: {free / 2**20:,.0f} MB are free", advice)
    if free < LITTLE and free < SHARE * total:
        return warning("disk", f"{where} is almost full: {told}", advice)
    return ok("disk", told)


def _folders(settings: Settings) -> dict[str, Path]:
    """Those that are always used, and those that are set beside them."""
    files = {"LOG_FILE": settings.log_file, "ERROR_LOG_FILE": settings.error_log_file}
    return {
        "STATE_DIR": settings.state_dir,
        "RUNTIME_DIR": settings.runtime_dir,
        "LOG_DIR": settings.log_dir,
        **{name: file.parent for name, file in files.items() if file is not None},
        **({"ATTACHMENTS_DIR": settings.attachments_dir} if settings.attachments_dir is not None else {}),
    }


def _existing(folder: Path) -> Path:
    """The directory, or the nearest one above it that exists."""
    return next(each for each in (folder, *folder.absolute().parents) if each.exists())


def _writable(folder: Path) -> bool:
    """By writing, for modes do not tell it all."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return True
    except OSError:
        return False
