"""One page of docs/reference: where it lies, and how its tables are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

FOLDER = ROOT / "docs" / "reference"


def path(name: str) -> Path:
    return FOLDER / f"{name}.md"


def page(title: str, *parts: str) -> str:
    """The text of a page, which says who made it."""
    return (
        "\n\n".join((f"# {title}", "<!-- made by `make reference`: change the code that it is made of -->", *parts))
        + "\n"
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; a cell that is None is empty."""
    lines = [columns, ["---"] * len(columns), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: object) -> str:
    return f"`{text}`"


def _cell(value: object) -> str:
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")
