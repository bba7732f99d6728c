"""The queues of the database."""

from __future__ import annotations

from typing import Any

from workerctl.top.table import Column, Row, Table
from workerctl.top.words import number, short

COUNTS = ("queued", "scheduled", "blocked", "running")


class Queues(Table):
    """How deep each is; `p` pauses the one under the cursor."""

    COLUMNS = (
        Column("queue", share=1),
        Column("queued", 7, right=True),
        Column("sched", 6, right=True),
        Column("block", 6, right=True),
        Column("run", 6, right=True),
        Column("oldest", 7, right=True),
        Column("", 7),
    )

    _paused: frozenset[str] = frozenset()

    def is_paused(self, queue: str) -> bool:
        return queue in self._paused

    def show_queues(self, queues: list[dict[str, Any]]) -> None:
        """As in `queues list --json`."""
        self._paused = frozenset(each["queue"] for each in queues if each["paused"])
        self.headline.about("")
        self.show([_row(each) for each in queues])


def _row(each: dict[str, Any]) -> Row:
    counts = [number(each[count]) for count in COUNTS]
    paused = "paused" if each["paused"] else ""
    return Row(
        each["queue"], (each["queue"], *counts, short(each["oldest_queued_s"]), paused), "yellow" if paused else ""
    )
