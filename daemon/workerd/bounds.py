"""Bounds: which names, numbers and times the queue stores. The functions of the schema have the same ones."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from workerd.errors import TaskError

NAME = 200  # characters of the name of a task, a queue, a node, a schedule
KEY = 1000  # bytes of a key: it is part of an index
RETRIES = (0, 32767)
PRIORITIES = (-32768, 32767)
COUNT = (1, 2**31 - 1)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # which would make a line two, and a terminal do anything
_FIRST = datetime(1, 1, 2, tzinfo=UTC)  # a day from the ends of Python's calendar: other time zones can show it
_END = datetime(9999, 1, 1, tzinfo=UTC)


def check_name(what: str, value: object) -> None:
    """Raise TaskError for what names nothing."""
    if not isinstance(value, str):
        raise TaskError(f"{what} is {value!r:.80}, allowed is a text")
    if not value or _CONTROL.search(value):
        raise TaskError(
            f"{what} is {value!r:.80}: give it a name of 1 to {NAME} characters, none of them a control character"
        )
    if len(value) > NAME:
        raise TaskError(f"{what} has {len(value)} characters, allowed are {NAME}")


def check_key(value: object) -> None:
    """Raise TaskError for a key that cannot be stored."""
    if value == "":
        raise TaskError("key is empty: leave it out, or name what the job is about")
    if not isinstance(value, str) or "\0" in value:
        raise TaskError(f"key is {value!r:.80}, allowed is a text without NUL")
    if len(value) * 4 > KEY and len(value.encode(errors="replace")) > KEY:
        raise TaskError(f"key has {len(value.encode(errors='replace')):,} bytes, allowed are {KEY:,}")


def check_whole(what: str, value: object, bounds: tuple[int, int]) -> None:
    """Raise TaskError for what is no whole number within the bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not bounds[0] <= value <= bounds[1]:
        raise TaskError(f"{what} is {value!r:.80}, allowed is a whole number from {bounds[0]} to {bounds[1]}")


def check_time(what: str, value: object) -> None:
    """Raise TaskError for what is no moment, or one that not every time zone can show."""
    if not isinstance(value, datetime):
        raise TaskError(f"{what} is {value!r:.80}, allowed is a datetime with its time zone")
    if value.tzinfo is None:
        raise TaskError(f"{what} has no time zone: use datetime.now(timezone.utc) or another aware datetime")
    if not _FIRST <= value < _END:
        raise TaskError(f"{what} is {value}, allowed are times between the years 1 and 9999")
