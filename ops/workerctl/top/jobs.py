"""The newest jobs: those that failed, or all."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.binding import Binding, BindingType

from workerctl.render import COLOURS
from workerctl.top.table import Column, Row, Table
from workerctl.top.words import clock


class Jobs(Table):
    """`r` retries the one under the cursor, Enter shows it, `f` shows all or those that failed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Show", key_display="⏎")]
    COLUMNS = (
        Column("job", 9),
        Column("task", share=2),
        Column("state", 10),
        Column("#", 4, right=True),
        Column(" when", 10),
        Column("error", share=4),
    )

    state: str | None = "failed"  # None: all

    def turn(self) -> None:
        """Show the others."""
        self.state = None if self.state else "failed"
        self.show([])

    def show_jobs(self, jobs: list[dict[str, Any]]) -> None:
        """As in `jobs list --json`."""
        shown = self.state or "of every state"
        self.headline.about(f"{shown}, the newest" if jobs else f"{shown}, none")
        self.show([_row(each) for each in jobs])


def _row(each: dict[str, Any]) -> Row:
    when = each["finished_at"] or each["started_at"] or each["enqueued_at"]
    error = each["error"] or each["message"] or ""
    cells = (str(each["id"]), each["task"], each["state"], str(each["attempt"] or ""), f" {clock(when)}", error)
    return Row(str(each["id"]), cells, COLOURS.get(each["state"], ""))
