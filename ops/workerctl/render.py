"""Tables for people, JSON for scripts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COLOURS = {
    "succeeded": "green",
    "running": "cyan",
    "alive": "green",
    "connected": "green",
    "busy": "cyan",
    "failed": "red",
    "dead": "red",
    "cancelled": "yellow",
    "scheduled": "blue",
    "draining": "yellow",
    "reconnecting": "red",
    "crashed": "red",
    "ok": "green",
    "problem": "red",
}


def say(text: str) -> None:
    """One line on standard output."""
    sys.stdout.write(f"{text}\n")


def warn(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"workerctl: {text}\n")


def json(value: object) -> None:
    """A value as JSON on standard output, indented on a terminal."""
    import orjson

    option = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    say(orjson.dumps(value, option=option).decode())


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, header: bool = True) -> None:
    """A table, on a terminal with lines; a cell that is a state's name has its colour, None is empty."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    drawn = Table(title=title, title_justify="left", header_style="bold", show_header=header)
    if not console.is_terminal:  # plain columns, for a pipe or a file
        console = Console(width=160)
        drawn.box, drawn.pad_edge = None, False
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(_cell(value), style=COLOURS.get(str(value), "")) for value in row))
    console.print(drawn)


def details(title: str, pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    table(title, ("", ""), pairs, header=False)


def brief(moment: str | None) -> str:
    """An ISO time in the reader's zone, to the second."""
    from datetime import datetime

    return "" if moment is None else datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def first_line(text: str | None) -> str:
    return (text or "").split("\n", 1)[0]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
