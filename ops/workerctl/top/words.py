"""Figures in few characters."""

from __future__ import annotations

from datetime import datetime


def short(seconds: float | None) -> str:
    """A duration: `0.3s`, `12s`, `5m03`, `2h14`, `3d4h`."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


def number(count: int) -> str:
    """Five characters at most: `9,999`, `12.3k`, `1.2M`."""
    for unit, size in (("M", 1_000_000), ("k", 1000)):
        if count >= size and count >= 10_000:
            value = count / size
            return f"{value:.1f}{unit}" if value < 100 else f"{value:.0f}{unit}"
    return f"{count:,}"


def clock(moment: str | None) -> str:
    """The time of an ISO moment in our zone; of another day, its date."""
    if moment is None:
        return ""
    at = datetime.fromisoformat(moment).astimezone()
    return f"{at:%H:%M:%S}" if at.date() == datetime.now().astimezone().date() else f"{at:%b %d}"
