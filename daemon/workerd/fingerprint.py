"""The fingerprint of a failure: the same for what failed in the same way, whatever numbers and names were involved."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from pathlib import Path

LENGTH = 12  # hexadecimal digits
LONGEST = 16_000  # characters of an error that are read, and kept

_FRAME = re.compile(r'^[ |]*File "(?P<file>[^"\n]+)", line \d+, in (?P<function>.+)$', re.MULTILINE)
_VARIABLE = (
    (re.compile(r"\b[A-Za-z][\w+.-]{0,30}://\S+"), "ADDRESS"),
    (re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|`[^`\n]*`"), "TEXT"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "ID"),
    (re.compile(r"(?<!\w)(?:/[\w.@+-]+){2,}"), "PATH"),
    (re.compile(r"\b(?:0x[0-9a-fA-F]+|(?=[a-fA-F]*\d)[0-9a-fA-F]{8,})\b"), "ID"),
    (re.compile(r"\d+(?:[.,:]\d+)*"), "N"),
)


def fingerprint(error: str) -> str:
    """Of an error as it is kept with an attempt: its first line and, if there is one, the traceback below.

    With a traceback it is made of the type of the exception and the frames of the user's code, without line numbers; else of the
    first line, in which numbers, ids, quoted text, paths and addresses count for nothing.
    """
    error = error[:LONGEST]
    first = error.partition("\n")[0]
    frames = _frames(error)
    what = [first.partition(":")[0], *frames] if frames else [normal(first)]
    return sha256("\n".join(what).encode("utf-8", "backslashreplace")).hexdigest()[:LENGTH]


def normal(line: str) -> str:
    """The line without what differs from one failure to the next."""
    for pattern, word in _VARIABLE:
        line = pattern.sub(word, line)
    return line


@cache
def not_theirs() -> tuple[str, ...]:
    """What the files of libraries begin with, ours among them."""
    import sysconfig

    libraries = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    return (str(Path(__file__).parent), *libraries, "<frozen")


def _frames(error: str) -> list[str]:
    """File and function of each frame of the traceback, those of libraries left out unless there is no other."""
    found = [(match["file"], match["function"]) for match in _FRAME.finditer(error)]
    theirs = [frame for frame in found if not frame[0].startswith(not_theirs())] or found
    return [f"{Path(file).name} {function}" for file, function in theirs]
