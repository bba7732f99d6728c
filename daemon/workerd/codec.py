"""JSON in and out: the one codec for payloads, results and progress."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any

import orjson

from workerd.errors import PayloadError

MAX_BYTES = 1_000_000  # of a payload or result: more belongs into a file or a table of its own

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # not where the backslash is itself escaped: that is text about NUL


def dumps(value: object, what: str) -> str:
    """The JSON text of `value`. Raises PayloadError, naming `what`, when it is not JSON or over 1 MB."""
    try:
        data = orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise PayloadError(f"{what} is not JSON: {error}") from error
    if len(data) > MAX_BYTES:
        raise PayloadError(
            f"{what} has {len(data):,} bytes, the limit is {MAX_BYTES:,}: store the data elsewhere and pass a reference"
        )
    if b"\\u0000" in data and _NUL.search(data):
        raise PayloadError(f"{what} contains a NUL character, which PostgreSQL's JSON cannot store: remove it")
    return data.decode()


def _plain(value: object) -> object:
    """What is written for values that JSON does not know; their text tells what they were."""
    if not isinstance(value, (Decimal, PurePath, timedelta)) and not hasattr(value, "model_dump_json"):
        raise TypeError
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, by_alias=True)


def loads(text: str | bytes) -> Any:
    """The value of a JSON text. Raises PayloadError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise PayloadError(f"not JSON: {error}") from error


def storable(text: str) -> str:
    """Any text as PostgreSQL can store it: NUL and lone surrogates, which it refuses, are written as escapes."""
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()
