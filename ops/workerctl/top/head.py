"""The head: the daemon and its database, in three lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual.widgets import Static

from workerctl.render import COLOURS, clock
from workerd.units import format_duration, format_size

if TYPE_CHECKING:
    from workerd.config import Settings


class Head(Static):
    """`daemon` is what is known of it, `trouble` why it or the database does not answer us."""

    def __init__(self, settings: Settings, runtime: str) -> None:
        super().__init__(id="head")
        self._who = f"{settings.name} ({runtime})"
        self._daemon: dict[str, Any] | None = None
        self._asked = False
        self._trouble = {"daemon": "", "database": ""}

    def show_daemon(self, told: dict[str, Any] | None, trouble: str = "") -> None:
        """`told` as in `status --json`; None: it is stopped, or does not answer, as `trouble` says."""
        self._daemon, self._asked, self._trouble["daemon"] = told, True, trouble
        self.update(self._lines())

    def show_database(self, trouble: str) -> None:
        """Whether the database answers us."""
        self._trouble["database"] = trouble
        self.update(self._lines())

    def _lines(self) -> Text:
        lines = [self._first(), self._second(), self._third()]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
            line.truncate(max(1, self.size.width), overflow="ellipsis")
        return Text("\n").join(lines)

    def _first(self) -> Text:
        told = self._daemon
        if told is None:
            state = self._trouble["daemon"] or ("stopped; `workerctl start` starts it" if self._asked else "…")
            return Text.assemble((self._who, "bold"), " ", (state, "bold red" if self._asked else ""))
        state = told["state"]
        rest = [f"PID {told['pid']}"] if "pid" in told else [f"{len(told['daemons'])} daemons"]
        if "uptime_s" in told:
            rest += [f"up {format_duration(told['uptime_s'])}", f"node {told['node']}"]
        return Text.assemble(
            (self._who, "bold"), " ", (state, COLOURS.get(state, "bold yellow")), "  ", "  ".join(rest)
        )

    def _second(self) -> Text:
        told = self._daemon
        if told is None or "workers" not in told:
            return Text("")
        parts = [
            f"{told['workers']} workers, {told['busy']} busy",
            f"{told['jobs_done']:,} done, {told['jobs_failed']:,} failed",
            f"RSS {format_size(told['rss_bytes'])}",
        ]
        if "cpu_percent" in told:
            parts += [f"CPU {told['cpu_percent']:.0f} %", f"loop lag {told['loop_lag_ms']:.1f} ms"]
        stuck = told.get("stuck")
        return Text.assemble("  ".join(parts), (f"  NO TURN: {', '.join(stuck)}" if stuck else "", "bold red"))

    def _third(self) -> Text:
        if self._trouble["database"]:
            return Text(_reason_first(self._trouble["database"]), "bold red")
        database = (self._daemon or {}).get("database")
        if database is None:
            return Text("")
        state, reason = database["state"], database.get("reason")
        since = f"since {clock(database['since'])}" + (f": {reason}" if reason else "")
        return Text.assemble("database ", (state, COLOURS.get(state, "bold red")), f" {since}  {database['host']}")


def _reason_first(trouble: str) -> str:
    """The place can be long and is known: what is wrong comes before it."""
    found = re.match(r"the database at (\S+) (.*)", trouble)
    return f"database {found[2]}: {found[1]}" if found else f"database: {trouble}"
