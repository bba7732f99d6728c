"""The workers, the busy ones first, those that run longest on top."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.binding import Binding, BindingType

from workerctl.top.table import Column, Row, Table
from workerctl.top.words import short


class Workers(Table):
    """What each slot runs."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Show", key_display="⏎")]
    COLUMNS = (Column("slot", 5), Column("job", 8), Column("task", share=1), Column("running", 8, right=True))

    def show_daemon(self, told: dict[str, Any] | None) -> None:
        """`told` as in `status --json`."""
        slots = [] if told is None else told.get("slots", [])
        self.headline.about("" if told is None or "workers" not in told else f"{told['workers']}, {told['busy']} busy")
        slots = sorted(slots, key=lambda slot: -1.0 if slot["running_s"] is None else slot["running_s"], reverse=True)
        self.show([_row(place, slot) for place, slot in enumerate(slots)])


def _row(place: int, slot: dict[str, Any]) -> Row:
    if slot["job_id"] is None:
        return Row(f"idle {place}", (str(slot["worker"]), "", slot["state"], ""), "dim")
    cells = (str(slot["worker"]), str(slot["job_id"]), slot["task"], short(slot["running_s"]))
    return Row(f"job {slot['job_id']}", cells)
