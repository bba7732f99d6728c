"""The kinds of values that settings have: what people may write for one, and what it then is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerd.units import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

_WHOLE = re.compile(r"([+-]?[0-9]+(?:_[0-9]+)*)(?:\.0+)?")
_DIGITS = 4300  # of a whole number, which is as many as Python reads
_SAID = {
    word: said for said, words in ((True, "1 on t true y yes"), (False, "0 off f false n no")) for word in words.split()
}


@dataclass(frozen=True)
class Kind:
    """`read` makes the value of a text, or of a value that code gives; raises ValueError with what is allowed.

    `words`: the values themselves, where only these are allowed.
    """

    name: str
    read: Callable[[Any], Any]
    words: tuple[str, ...] = ()


def one_of(*words: str, read: Callable[[str], str] = str) -> Kind:
    """One of some words; `read` is what is done to a text before."""
    quoted = [repr(word) for word in words]
    allowed = f"{', '.join(quoted[:-1])} or {quoted[-1]}"

    def chosen(value: str) -> str:
        word = read(value)
        if word not in words:
            raise ValueError(f"has to be {allowed}")
        return word

    return Kind("word", chosen, words)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("has to be a text")  # noqa: TRY004 - told as all that is wrong with a setting
    return value


def _whole(value: Any) -> int:
    if isinstance(value, int):
        return value
    match = _WHOLE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("has to be a whole number")
    if len(match[1]) > _DIGITS:
        raise ValueError("has to be a whole number of fewer digits")
    return int(match[1])


def _yes(value: Any) -> bool:
    said = value if isinstance(value, bool) else _SAID.get(str(value).lower())
    if said is None:
        raise ValueError("has to be true or false")
    return said


def _names(value: Any) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else tuple(value)


TEXT = Kind("text", _text)
FILLED = Kind("text", lambda value: _text(value) if value else None)  # empty is not given
NUMBER = Kind("number", _whole)
SECONDS = Kind("duration", lambda value: parse_duration(value) if isinstance(value, str) else float(value))
SIZE = Kind("size", lambda value: parse_size(value) if isinstance(value, str) else int(value))
NAMES = Kind("list", _names)
YES = Kind("true or false", _yes)
PATH = Kind("path", Path)
