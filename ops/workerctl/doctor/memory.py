"""Memory: of this host, and of the container we are in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workerctl.doctor.finding import Finding, ok, warning

if TYPE_CHECKING:
    from workerd.settings import Settings

LITTLE = 0.05  # of the host's memory
CGROUP = Path("/sys/fs/cgroup")
_NAMES = ("memory.max", "memory/memory.limit_in_bytes")  # of the second and first version


def memory(settings: Settings) -> list[Finding]:
    import psutil

    seen = psutil.virtual_memory()
    return [judge(settings.max_memory, seen.available, seen.total, limit_of_container())]


def judge(max_memory: int | None, available: int, total: int, limit: int | None) -> Finding:
    """By MAX_MEMORY, the bytes that the host has to give and has at all, and what the container may take."""
    if max_memory is not None and max_memory >= (limit or total):
        what = "this container may take" if limit else "this host has"
        found = f"MAX_MEMORY is {_mb(max_memory)} and {what} {_mb(limit or total)}: it is killed before it hands over"
        return warning("memory", found, "set MAX_MEMORY to three quarters of that, or raise the limit")
    if available < LITTLE * total:
        found = f"{_mb(available)} of {_mb(total)} are available on this host"
        return warning(
            "memory", found, "run fewer workers, or see what takes it: `workerctl status`, ps aux --sort -rss"
        )
    return ok("memory", f"{_mb(available)} of {_mb(total)} are available")


def limit_of_container(root: Path = CGROUP) -> int | None:
    """Bytes; None when nothing limits us."""
    for name in _NAMES:
        try:
            text = (root / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 2**60:  # the first version says "no limit" by a number
            return int(text)
    return None


def _mb(size: int) -> str:
    return f"{size / 2**20:,.0f} MB"
