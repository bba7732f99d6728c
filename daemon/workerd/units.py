"""Durations and sizes as people write them."""

from __future__ import annotations

import math
import re
from datetime import timedelta

Duration = str | float | timedelta

_SECONDS = {
    "": 1.0,
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
LONGEST = 36525 * 86400.0  # a century: added to now, far from where PostgreSQL's clock ends
_BYTES = {"": 1, "B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def parse_duration(value: Duration) -> float:
    """Seconds of `90`, `90s`, `5m`, `2h`, `1h30m`, a number of seconds or a timedelta. Raises ValueError."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        seconds = _parse_text(value)
    else:
        try:
            seconds = float(value)
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{value!r} is not a duration: use seconds, or 90s, 5m, 2h, 7d")
    if seconds > LONGEST:
        raise ValueError(f"{value!r} is not a duration: the longest is {LONGEST / 86400:.0f}d")
    return seconds


def _parse_text(value: str) -> float:
    text = value.strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text)
    if not parts or "".join(re.split(r"\s+", text)) != "".join(number + unit for number, unit in parts):
        raise ValueError(f"{value!r} is not a duration: use seconds, or 90s, 5m, 2h, 7d")
    if any(unit not in _SECONDS for _, unit in parts) or (len(parts) > 1 and any(not unit for _, unit in parts)):
        raise ValueError(f"{value!r} is not a duration: the units are ms, s, m, h, d, w")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def parse_rate(value: str | float) -> float:
    """A number per second of `10/s`, `100/m`, `1000/h`, `5/30s`, or a number. Raises ValueError."""
    amount, _, unit = str(value).strip().lower().partition("/")
    try:
        unit = unit.strip() or "s"
        rate = float(amount) / parse_duration(unit if unit[0].isdigit() else f"1{unit}")
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{value!r} is not a rate: use 10/s, 100/m or 1000/h") from error
    if not math.isfinite(rate) or rate <= 0:
        raise ValueError(f"{value!r} is not a rate: use 10/s, 100/m or 1000/h")
    return rate


def parse_size(value: str | int) -> int:
    """Bytes of `500M`, `2G`, `1.5 GiB` or a number of bytes. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", str(value).strip().upper())
    size = math.inf if match is None else float(match[1]) * _BYTES[match[2]]
    if not math.isfinite(size):
        raise ValueError(f"{value!r} is not a size: use bytes, or 500M, 2G")
    return int(size)


def format_duration(seconds: float) -> str:
    """A duration for people: `350 ms`, `12.4 s`, `5 min 3 s`, `2 h 14 min`, `3 d 4 h`."""
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    for big, small, size, step in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            return f"{whole} {big} {rest // step} {small}" if rest // step else f"{whole} {big}"
    raise AssertionError("unreachable: every duration of a minute or more has a unit")


def exact_duration(seconds: float) -> str:
    """A duration that `parse_duration` reads as it is, to the microsecond: `1h30m15s`, `1.25s`."""
    left = timedelta(seconds=seconds)
    days, (hours, rest) = left.days, divmod(left.seconds, 3600)
    minutes, whole = divmod(rest, 60)
    last = f"{whole}.{left.microseconds:06}".rstrip("0").rstrip(".")
    parts = [
        f"{count}{unit}"
        for count, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (last, "s"))
        if count not in (0, "0")
    ]
    return "".join(parts) or "0s"


def format_size(size: float) -> str:
    """A size for people: `512 B`, `58.3 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if round(size, 1) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
