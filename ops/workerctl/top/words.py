"""Figures in few characters."""

from __future__ import annotations

from datetime import datetime


def short(seconds: float | None) -> str:
    """A duration: `0.3s`, `12s`, `5m03`, `2h14`, `3d4h`."""
    if seconds is None:
        return ""
    if round(seconds, 1) < 10:
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
    """At most five characters, rounded down: `9,999`, `12.3k`, `1.2M`."""
    if count < 10_000:
        return f"{count:,}"
    unit, size = ("M", 1_000_000) if count >= 1_000_000 else ("k", 1000)
    value = count * 10 // size / 10
    return f"{value:.1f}{unit}" if value < 100 else f"{int(value)}{unit}"


def clock(moment: str | None) -> str:
    """The time of an ISO moment in our zone; of another day, its date."""
    if moment is None:
        return ""
    try:
        at = datetime.fromisoformat(moment).astimezone()
    except (ValueError, OverflowError):  # beyond the calendar
        return moment
    return f"{at:%H:%M:%S}" if at.date() == datetime.now().astimezone().date() else f"{at:%b %d}"
