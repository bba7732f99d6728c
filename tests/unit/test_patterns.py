"""No pattern takes longer than in proportion to its text: one that does holds the interpreter, and with it the daemon."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[2]
ANCHORED = ("match", "fullmatch")
SHORT, LONG = 500, 2_000  # characters; four times the text takes four times as long, or sixteen times
MOST = 9.0  # how many times as long, between the two
NOISE = 0.0005  # seconds: what takes less is not worth a comparison

# Patterns whose source alone does not tell them: by file and source, an expression that gives them, or examples of them.
MADE = {
    ("workerd/redact.py", "'|'.join(map(_whole, longest_first))"): "r'(?<!\\w)secret(?!\\w)|other one'",
    ("invoices/rules.py", "f'(?:{label})\\\\s*[:.]?\\\\s*(?:{DATE})'"): "LABELLED_DATES",
    ("invoices/rules.py", "f'(?:{label})[^\\\\n\\\\d-]{{0,40}}?\\\\s*{MONEY}\\\\s*{AMOUNT}'"): "TOTALS",
    ("invoices/rules.py", "pattern"): "tuple(pattern for _, pattern in CURRENCIES)",
    ("workerctl/install/kept.py", "f'(?m)^{pattern}'"): "r'(?m)^#? ?NAME=.*'",
    ("workerctl/manager/page/views.py", "pattern"): "tuple(_VIEWS)",
    (
        "workerctl/commands/logs.py",
        "f'\\\\[job {job} [^\\\\[]*?#(\\\\d+)\\\\] (.*)'",
    ): "r'(?s)\\[job 7 [^\\[]*?#(\\d+)\\] (.*)'",
}
# They read files of the package alone.
TRUSTED = ("workerd/queue/rights.py",)
# What repetitions are made of: what words, numbers, addresses, paths, tracebacks, quotes and SQL consist of.
PIECES = (
    "a",
    "a.",
    "A1",
    "1",
    "1.",
    "1,",
    "0",
    "_",
    "-",
    "/",
    "/a",
    "//",
    "a/",
    "://",
    "a://",
    "a://b:",
    "a:",
    "b@",
    "=",
    "key=",
    "&",
    "?",
    "#",
    "'",
    '"',
    "`",
    "\\",
    '\\"',
    "\\u0000",
    " ",
    "  ",
    "\t",
    "\n",
    " \n",
    "\n ",
    "a ",
    "1 ",
    "(",
    ")",
    "[",
    "{",
    "[job 7 ",
    '{"ts":"',
    "a-1",
    ' File "a", line 1, in f\n',
    '  File "',
    '", line ',
    ", ",
    ": ",
    ":",
    "--",
    "$",
    "|",
    "-- part: ",
    "LOG: ",
    "no 1 ",
    "GmbH ",
)


@dataclass(frozen=True)
class Found:
    place: str
    source: str
    patterns: tuple[re.Pattern[Any], ...]  # none: the source does not tell them
    anchored: bool  # it is only tried at the beginning of a text


def _patterns() -> Iterator[Found]:
    """Every pattern in the code: the first argument of each call of a function of `re`."""
    for folder in ("daemon", "ops"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT / folder)
            for call in ast.walk(ast.parse(text)):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and _is_re(call.func):
                    source = ast.unparse(call.args[0])
                    anchored = call.func.attr in ANCHORED or _is_anchored(text, call)
                    yield Found(f"{name}:{call.lineno}", source, _made(name, call, source), anchored)


def _is_re(function: ast.Attribute) -> bool:
    of_re = isinstance(function.value, ast.Name) and function.value.id == "re"
    return of_re and function.attr in (*ANCHORED, "compile", "search", "split", "findall", "finditer", "sub", "subn")


def _is_anchored(text: str, call: ast.Call) -> bool:
    """Whether a compiled pattern is used with `match` and `fullmatch` alone."""
    line = text.splitlines()[call.lineno - 1]
    name, mark, _ = line.partition(" = re.compile(")
    return (
        bool(mark)
        and set(re.findall(rf"\b{name.strip()}\.(\w+)\(", text)) <= {*ANCHORED}
        and f"{name.strip()}." in text
    )


def _made(path: Path, call: ast.Call, source: str) -> tuple[re.Pattern[Any], ...]:
    names = dict(vars(importlib.import_module(".".join(path.with_suffix("").parts))))
    flags = ast.unparse(call.args[1]) if ast.unparse(call.func) == "re.compile" and len(call.args) > 1 else "0"
    try:
        made = eval(MADE.get((str(path), source), source), names)  # noqa: S307 - our own source
    except NameError:
        return ()
    many = made if isinstance(made, tuple) else (made,)
    return tuple(re.compile(one, eval(flags, {"re": re}) if isinstance(one, (str, bytes)) else 0) for one in many)  # noqa: S307


FOUND = [found for found in _patterns() if not found.place.startswith(TRUSTED)]


def test_each_pattern_is_known() -> None:
    assert [f"{found.place}: {found.source}" for found in FOUND if not found.patterns] == [], "say in MADE what it is"
    assert len(FOUND) > 70


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.place)
def test_no_pattern_takes_longer_than_in_proportion_to_a_text_that_repeats(found: Found) -> None:
    _check_all(found, ("",))


@pytest.mark.long
@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.place)
def test_nor_to_one_that_begins_otherwise(found: Found) -> None:
    _check_all(found, PIECES)


def _check_all(found: Found, beginnings: Iterable[str]) -> None:
    for pattern, first, piece, end in itertools.product(found.patterns, beginnings, PIECES, ("", "!", "\n")):
        assert _taken(found, pattern, first + piece * (24 // len(piece) + 1) + end) < 1.0, "it would not end with more"
        long = first + piece * (LONG // len(piece)) + end
        if _taken(found, pattern, long) > NOISE:
            short = first + piece * (SHORT // len(piece)) + end
            least = [min(_taken(found, pattern, text) for _ in range(5)) for text in (long, short)]
            assert least[0] < MOST * least[1], f"{pattern.pattern!r} on {first!r} + {piece!r} * n + {end!r}"


def _taken(found: Found, pattern: re.Pattern[Any], text: str) -> float:
    """Seconds of the processor."""
    given: Any = text.encode() if isinstance(pattern.pattern, bytes) else text
    began = process_time()
    if found.anchored:
        pattern.match(given)
        pattern.fullmatch(given)
    else:
        for _ in pattern.finditer(given):
            pass
    return process_time() - began
