"""A table that fits its pane: nothing is scrolled sideways, and what does not fit ends in an ellipsis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from workerctl.top.title import Title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.events import Resize


@dataclass(frozen=True)
class Column:
    """`width` in characters, the gap behind it included; `share`: its part of what is left."""

    title: str
    width: int = 0
    share: int = 0
    right: bool = False


@dataclass(frozen=True)
class Row:
    """One line; `style` is that of its cells."""

    key: str
    cells: Sequence[str]
    style: str = ""


class Table(DataTable[Text]):
    """Shows rows; the line under the cursor stays the same one when they change."""

    COLUMNS: ClassVar[tuple[Column, ...]]

    def __init__(self, name: str) -> None:
        super().__init__(cursor_type="row", cell_padding=0)
        self.headline = Title(self, name)
        self._rows: Sequence[Row] = ()
        self._widths: list[int] = []

    @property
    def selected(self) -> str | None:
        """The key of the line under the cursor."""
        if not self.row_count:
            return None
        return self.coordinate_to_cell_key(Coordinate(self.cursor_row, 0)).row_key.value

    def is_old(self, since: str) -> None:
        """What is shown is of that time, for the database does not answer."""
        self.headline.trouble(f"as of {since}" if since else "not known")

    def show(self, rows: Sequence[Row]) -> None:
        """Show these from now on."""
        self._rows = rows
        if not self._widths:  # it has no size yet
            return
        selected, scrolled = self.selected, self.scroll_y
        self.clear()
        for row in rows:
            self.add_row(*self._cells(row), key=row.key)
        keys = [row.key for row in rows]
        self.move_cursor(row=keys.index(selected) if selected in keys else 0, scroll=False)
        self.scroll_to(y=scrolled, animate=False)

    def on_resize(self, event: Resize) -> None:
        """Give each column its width."""
        left = event.size.width - sum(column.width for column in self.COLUMNS)
        shares = sum(column.share for column in self.COLUMNS)
        self._widths = [column.width or max(2, left * column.share // shares) for column in self.COLUMNS]
        self.clear(columns=True)
        for column, width in zip(self.COLUMNS, self._widths, strict=True):
            self.add_column(_cell(column.title, width, right=column.right), width=width)
        self.show(self._rows)

    def _cells(self, row: Row) -> list[Text]:
        return [
            _cell(text, width, right=column.right, style=row.style)
            for text, width, column in zip(row.cells, self._widths, self.COLUMNS, strict=True)
        ]


def _cell(text: str, width: int, *, right: bool, style: str = "") -> Text:
    cell = Text(text.replace("\n", " "), style=style, no_wrap=True, end="")
    cell.truncate(width - 1, overflow="ellipsis")
    if right:
        cell.pad_left(width - 1 - cell.cell_len)
    return cell
