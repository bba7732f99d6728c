"""The end of the log."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text
from textual.widgets import RichLog

from workerctl.record import COLOURS, for_people
from workerctl.top.title import Title

if TYPE_CHECKING:
    from textual.events import Resize


class Log(RichLog):
    """One line for each record, the newest at the bottom."""

    def __init__(self) -> None:
        super().__init__(auto_scroll=False)
        self.headline = Title(self, "log")
        self._records: list[str] = []
        self._written: list[str] | None = None

    def show_log(self, records: list[str], missing: str) -> None:
        """Records as the log has them; `missing`: why there are none."""
        self.headline.about("", "" if records else missing)
        self._records = records
        self._write()

    def on_resize(self, _event: Resize) -> None:
        self._written = None
        self._write()

    def _write(self) -> None:
        if self._records == self._written or not self.size.width:
            return
        self._written = self._records
        follows = self.is_vertical_scroll_end
        at = self.scroll_y
        self.clear()
        today = datetime.now().astimezone().date()
        for record in self._records:
            text, level = for_people(record)
            line = Text(text.partition("\n")[0].removeprefix(f"{today} "), style=COLOURS.get(level, ""), no_wrap=True)
            line.truncate(self.size.width, overflow="ellipsis")
            self.write(line, scroll_end=False)
        if follows:
            self.scroll_end(animate=False)
        else:
            self.scroll_to(y=at, animate=False)
