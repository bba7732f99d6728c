"""Values that no handler and no client should send, and some that they may: for the fuzz of payloads, options and ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from workerd import Discard, RetryAfter, Snooze

TEXTS = [
    "",
    "x",
    "default",
    "a\x00b",
    "\ud800",
    "ü" * 300,
    "x" * 3000,
    "'; DROP",
    "\n",
    "\u202e",
    "NaN",
    "-1",
    "1h",
    "soon",
]
NUMBERS = [
    0,
    1,
    -1,
    5,
    2**31 - 1,
    2**31,
    2**63,
    2**64,
    -(2**63) - 1,
    1e18,
    1.5,
    0.0,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
]
TIMES = [
    datetime.max,  # noqa: DTZ901
    datetime.min,  # noqa: DTZ901
    datetime.max.replace(tzinfo=UTC),
    datetime.min.replace(tzinfo=UTC),
    datetime(9999, 12, 31, tzinfo=UTC),
    datetime(2026, 1, 1),  # noqa: DTZ001
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2100, 1, 1, tzinfo=UTC),
    timedelta.max,
    timedelta.min,
    timedelta(seconds=-1),
    timedelta(0),
    timedelta(days=400),
]
OTHERS: list[Any] = [None, True, [], {}, object(), b"bytes", Decimal("1e400"), {1: 2, "1": 3}, {"a": {2}}]
NESTED = [json.loads("[" * depth + "]" * depth) for depth in (50, 199, 250, 900)]

texts = st.sampled_from(TEXTS) | st.text(max_size=20)
numbers = st.sampled_from(NUMBERS) | st.integers() | st.floats()
anything = texts | numbers | st.sampled_from(TIMES) | st.sampled_from(OTHERS) | st.sampled_from(NESTED)
values = st.recursive(
    texts | numbers | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
payloads = st.dictionaries(texts, values, max_size=3) | st.fixed_dictionaries({"value": anything})

OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "priority": anything,
    "queue": anything,
    "delay": anything,
    "run_at": anything,
    "deadline": anything,
    "key": anything,
    "max_retries": anything,
    "conflict": st.sampled_from(["keep", "replace", "reschedule", "raise", 7]),
    "key_until": st.sampled_from(["finished", "started", "never"]),
    "after": anything,
    "pin": anything,
    "prefer": anything,
}
options = st.lists(st.sampled_from(sorted(OPTIONS)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: OPTIONS[name] for name in names})
)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Wordless(RetryAfter):
    def __init__(self) -> None:
        """Without a delay."""


def after(kind: type[RetryAfter | Snooze], delay: Any) -> BaseException:
    made = kind(1)
    made.delay = delay
    return made


DELAYS: list[Any] = ["soon", None, float("inf"), float("nan"), -1, 1e18, [], 3600]
RAISED: list[BaseException] = [
    ValueError("a\x00b \ud800"),
    ValueError("x" * 200_000),
    Unspeakable(),
    Wordless(),
    KeyError(),
    GeneratorExit(),
    SystemExit(3),
    KeyboardInterrupt(),
    StopIteration(1),
    StopAsyncIteration(),
    Discard("\x00"),
    Discard(""),
    BaseException("base"),
    ExceptionGroup("group", [ValueError("a.a." * 30_000), Discard("no")]),
    BaseExceptionGroup("group", [SystemExit(1), Discard("no")]),
    ExceptionGroup("group", [Discard("one"), Discard("two")]),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    *(after(kind, delay) for kind in (RetryAfter, Snooze) for delay in DELAYS),
]
RETURNED: list[Any] = [
    *TEXTS,
    *NUMBERS,
    *TIMES,
    *OTHERS,
    *NESTED,
    ["x" * 999_990],
    ["x" * 1_000_010],
    {"a": "\x00"},
    {2**64: 1},
]

# As JSON texts, which say what Python's own writer does not.
JSONS = [
    "{}",
    '{"value": 1e400}',
    '{"value": NaN}',
    '{"value": "\\u0000"}',
    '{"value": "\\ud800"}',
    "[",
    "",
    "1",
    "null",
    '{"value": 1, "value": 2}',
    '{"value": 123456789012345678901234567890}',
    '{"value": 0.12345678901234567890}',
    '{"value": ' + "[" * 1100 + "]" * 1100 + "}",
]
SQL_OPTIONS = {
    "priority": ("int", ["1", "-7", "99999", "2147483647"]),
    "queue": ("text", TEXTS),
    "key": ("text", TEXTS),
    "pin": ("text", TEXTS),
    "prefer": ("text", TEXTS),
    "max_retries": ("int", ["0", "-1", "2147483647"]),
    "run_at": (
        "timestamptz",
        ["infinity", "-infinity", "now", "200000-01-01", "4713-01-01 BC", "9999-12-31 23:59:59Z", "2100-01-01"],
    ),
    "delay": ("interval", ["0", "-5 years", "100000 years", "1 hour", "178000000 years"]),
    "deadline": ("timestamptz", ["infinity", "-infinity", "200000-01-01", "2100-01-01", "1970-01-01"]),
    "conflict": ("text", ["keep", "replace", "reschedule", "x"]),
    "key_until": ("text", ["finished", "started", "x"]),
    "after": ("bigint[]", ["{}", "{1}", "{-1,NULL}", "{9223372036854775807}"]),
    "traceparent": ("text", TEXTS),
    "batch": ("boolean", ["true", "false"]),
}
ENDS = st.fixed_dictionaries(
    {"outcome": st.sampled_from(["succeeded", "failed", "cancelled", "retry", "snooze", "returned", "x"])},
    optional={
        "result": st.sampled_from([*JSONS, '"fine"', None, 7]),
        "error": texts | st.none(),
        "delay": numbers | st.none() | texts,
        "ttl": numbers,
        "ran": numbers,
        "ago": numbers,
        "progress": numbers,
        "lines": st.lists(st.fixed_dictionaries({"number": numbers, "age": numbers, "message": texts}), max_size=2),
    },
)
TELLINGS = st.fixed_dictionaries({"number": numbers, "text": texts, "result": st.sampled_from([*JSONS, '"fine"'])})
