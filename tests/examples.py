"""The examples of the documentation, to be run as they stand there.

Each block has a line above it that says what becomes of it: `<!-- run: tests/… -->` names the test that takes it from the page and runs it,
`<!-- not run: why -->` says why none does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r" *<!-- (run|not run): (.+) -->")


@dataclass(frozen=True)
class Block:
    """`page` is its path from the project's top; `run` names a test, `reason` says why there is none."""

    page: str
    line: int
    language: str
    text: str
    run: str | None
    reason: str | None


def pages() -> list[Path]:
    """The README and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Every block of a page, in their order."""
    return list(_blocks(page))


def examples(page: str, language: str = "python") -> list[str]:
    """The blocks of code of one language on a page of docs/, in their order."""
    return [each.text for each in blocks(ROOT / "docs" / page) if each.language == language]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        before = text[: found.start()].splitlines()
        marked = _MARK.fullmatch(before[-1]) if before else None
        kind, value = marked.groups() if marked else ("", "")
        yield Block(
            page=str(page.relative_to(ROOT)),
            line=len(before) + 1,
            language=found["language"],
            text=found["text"],
            run=value if kind == "run" else None,
            reason=value if kind == "not run" else None,
        )
