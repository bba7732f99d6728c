"""Jobs per second of this daemon: what it has done and what has failed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from textual.containers import Horizontal, Vertical
from textual.widgets import Label, Sparkline

from workerctl.top.title import Title

if TYPE_CHECKING:
    from textual.app import ComposeResult

KEPT = 300  # seconds


@dataclass
class Series:
    """Rates of one counter."""

    counter: str
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))


class Throughput(Vertical):
    """One line for each counter, newest on the right."""

    def __init__(self) -> None:
        super().__init__()
        self.headline = Title(self, "throughput")
        self._series = {"done": Series("jobs_done"), "failed": Series("jobs_failed")}
        self._last: tuple[float, dict[str, Any]] | None = None

    def compose(self) -> ComposeResult:
        for name in self._series:
            with Horizontal():
                yield Label(id=f"{name}-rate", classes="rate")
                yield Sparkline(id=f"{name}-line", classes=name, summary_function=max)

    def show_daemon(self, told: dict[str, Any] | None) -> None:
        """`told` as in `status --json`."""
        now, before = monotonic(), self._last
        self._last = None if told is None or "jobs_done" not in told else (now, told)
        self.headline.about("of this daemon, jobs/s" if self._last else "")
        for name, series in self._series.items():
            if self._last is None or before is None:
                rate = 0.0
            else:  # a daemon that has just been started begins at nothing
                rate = max(0, self._last[1][series.counter] - before[1][series.counter]) / (now - before[0])
            series.rates.append(rate)
            self.query_one(f"#{name}-rate", Label).update(f"{name:<6} {rate:7,.1f}   peak {max(series.rates):7,.1f}")
            line = self.query_one(f"#{name}-line", Sparkline)
            newest = list(series.rates)[-line.size.width :] if line.size.width else []
            line.data = [0.0] * (line.size.width - len(newest)) + newest
