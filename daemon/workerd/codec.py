"""JSON in and out: the one codec for payloads, results and progress."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any

import orjson

from workerd.errors import PayloadError

MAX_BYTES = 1_000_000  # of a payload or result: more belongs into a file or a table of its own
MAX_DEPTH = 200  # levels of lists and objects: less than any reader of JSON takes

_TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep: store the data elsewhere and pass a reference"
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # not where the backslash is itself escaped: that is text about NUL
# One without an end goes to the end of all: to look for its end from each quote would take for ever.
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"?')
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OTHER = bytes(set(range(256)) - set(b"[]{}"))
_LONG_NUMBER = re.compile(rb"[0-9.]{17}|[0-9][eE]")
_INTEGERS = range(-(2**63), 2**64)  # that every reader of JSON here keeps as they are


def dumps(value: object, what: str) -> str:
    """The JSON text of `value`. Raises PayloadError, naming `what`, when it is not JSON, over 1 MB, or would be read as something else."""
    try:
        data = _written(value)
    except (orjson.JSONEncodeError, RecursionError, ValueError) as error:
        raise PayloadError(f"{what} {_TOO_DEEP if 'ecursion' in str(error) else f'is not JSON: {error}'}") from error
    _check(data, what)
    return data.decode()


def check(text: str, what: str) -> None:
    """Raise PayloadError, naming `what`, for a JSON text from outside that cannot be stored or would be read as something else."""
    try:
        read(text)
    except PayloadError as error:
        said = str(error)
        raise PayloadError(f"{what} {said if said.startswith('has ') else f'is {said}'}") from error
    _check(text.encode(), what)


def _check(data: bytes, what: str) -> None:
    if len(data) > MAX_BYTES:
        raise PayloadError(
            f"{what} has {len(data):,} bytes, the limit is {MAX_BYTES:,}: store the data elsewhere and pass a reference"
        )
    if _is_deep(data):
        raise PayloadError(f"{what} {_TOO_DEEP}")
    if b"\\u0000" in data and _NUL.search(data):
        raise PayloadError(f"{what} contains a NUL character, which PostgreSQL's JSON cannot store: remove it")


def _written(value: object) -> bytes:
    try:
        data = orjson.dumps(value, default=_plain)
    except TypeError as error:
        if "key must be str" not in str(error):
            raise
        data = orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)
        json.loads(data, object_pairs_hook=_refuse_twins)
    if b"null" in data:  # which is what orjson makes of NaN and the infinities
        try:
            _FINITE.encode(value)
        except ValueError as error:
            raise ValueError("it holds NaN or an infinity, pass None or a text") from error
    return data


def _refuse_twins(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    twin = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twin is not None:
        raise ValueError(f"two keys of a dict are both written {twin!r}")


def _members(value: object) -> object:
    """What may hold a float in a value that JSON does not know."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    if isinstance(value, Decimal):
        return None
    return vars(value) if hasattr(value, "model_dump_json") else None


_FINITE = json.JSONEncoder(allow_nan=False, check_circular=False, skipkeys=True, default=_members)


def _is_deep(data: bytes) -> bool:
    return data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(data) > MAX_DEPTH


def _depth(data: bytes) -> int:
    depth = 0
    pairs = _TEXT.sub(b"", data).translate(_BRACKETS, _OTHER)
    while pairs:  # the innermost ones go
        pairs = pairs.replace(b"[]", b"")
        depth += 1
    return depth


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


def as_json(row: Any, timespec: str = "milliseconds") -> dict[str, Any]:
    """A row of the database as values that JSON has; times are in ISO 8601."""
    return {
        name: value.isoformat(timespec=timespec) if isinstance(value, datetime) else value
        for name, value in row.items()
    }


def shown(text: str) -> Any:
    """The value of a stored JSON text, or the text where it holds what cannot be read or written again."""
    try:
        return text if _is_deep(text.encode()) else orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def read(text: str | bytes) -> Any:
    """The value of a JSON text from outside. Raises PayloadError also for a number that would be read as another one."""
    value = loads(text)
    data = text.encode() if isinstance(text, str) else text
    if _LONG_NUMBER.search(data):
        try:
            json.loads(data, parse_int=_kept_integer, parse_float=_kept_float)
        except ValueError as error:
            raise PayloadError(str(error)) from error
    return value


def _kept_integer(text: str) -> None:
    if len(text) > 20 or int(text) not in _INTEGERS:
        raise ValueError(_lost(text))


def _kept_float(text: str) -> None:
    value = float(text)
    exact = math.isfinite(value) and (Decimal(text) == Decimal(repr(value)) if len(text) > 17 or value == 0 else True)
    if not exact:
        raise ValueError(_lost(text))


def _lost(text: str) -> str:
    return (
        f"has the number {text:.40}, which is read with less digits"
        " (allowed are integers of 64 bits and up to 17 digits): pass it as text"
    )


def storable(text: str) -> str:
    """Any text as PostgreSQL can store it: NUL and lone surrogates, which it refuses, are written as escapes."""
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()
