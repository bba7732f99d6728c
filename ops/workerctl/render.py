"""Tables for people, JSON for scripts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.tree import Tree

WHOLE = 20  # characters up to which a cell is not folded: ids, states, times
NAMES = frozenset({"name", "node", "queue", "task"})  # of which people know the whole when they see the half
PLAIN = 160  # characters of a line that is not for a terminal

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
    "warning": "yellow",
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


def tree(roots: Iterable[Tree]) -> None:
    """Trees of one line for each branch."""
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN)
    for root in roots:
        console.print(root, soft_wrap=True)


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, header: bool = True, cut: bool = False
) -> None:
    """A table; a cell that is a state's name has its colour, None is empty. `cut`: the last column has one line.

    A terminal gets what fits: lines if there is room for them, or no header; short cells such as ids whole; no column that
    is empty in all rows. A pipe or a file gets plain columns.
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    console = Console()
    terminal = console.is_terminal
    cells = [[_cell(value) for value in row] for row in rows]
    shown = [n for n in range(len(columns)) if not (terminal and cells) or any(row[n] for row in cells)]
    drawn = Table(title=title, title_justify="left", header_style="bold", show_header=header)
    for n in shown:
        widest = max((len(row[n]) for row in cells), default=0)
        heading = columns[n].replace("_", "\n") if terminal and len(columns[n]) > widest else columns[n]
        drawn.add_column(heading, overflow="fold", no_wrap=widest <= WHOLE and columns[n] not in NAMES)
    for row in cells:
        texts = [Text(row[n], style=COLOURS.get(row[n], "")) for n in shown]
        if cut:
            texts[-1].no_wrap, texts[-1].overflow = True, "ellipsis"
        drawn.add_row(*texts)
    if not terminal:
        console = Console(width=PLAIN)
    room = Measurement.get(console, console.options.update(max_width=PLAIN), drawn).maximum
    if not terminal or (header and room > console.width):
        drawn.box, drawn.pad_edge = None, False
    console.print(drawn)


def details(title: str, pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    table(title, ("", ""), pairs, header=False)


def lines(rows: Iterable[Sequence[str]]) -> None:
    """Columns without a frame; the last one takes the room that is left, on as many lines as it needs."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN)
    drawn = Table.grid(padding=(0, 2))
    for row in rows:
        drawn.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    with console.capture() as captured:
        console.print(drawn)
    for line in captured.get().splitlines():
        say(line.rstrip())


def brief(moment: str | None) -> str:
    """An ISO time in the reader's zone, to the second; what is none, such as a time beyond the calendar, as it is."""
    from datetime import datetime

    try:
        return "" if moment is None else datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return str(moment)


def clock(moment: str | None) -> str:
    """The same, on a terminal without the date of today."""
    from datetime import datetime

    day, _, time = brief(moment).partition(" ")
    return time if sys.stdout.isatty() and day == f"{datetime.now().astimezone():%Y-%m-%d}" else brief(moment)


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
