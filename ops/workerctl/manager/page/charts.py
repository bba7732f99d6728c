"""Charts: lines over time as paths of an SVG, and what they show in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from workerctl.manager.page.render import duration
from workerd.queue import samples

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from workerd.job import AnyConnection

    Value = Callable[[dict[str, Any]], float | None]

WIDTH, HEIGHT = 600, 120  # of the drawing, in its own units
PATIENCE = 3  # steps without a sample after which a line is broken


@dataclass(frozen=True)
class Range:
    """`span`: seconds of the samples, of which those of `step` seconds become one point."""

    title: str
    span: int
    step: int


RANGES = {"10m": Range("10 minutes", 1, 5), "24h": Range("24 hours", 60, 600), "90d": Range("90 days", 3600, 21600)}


@dataclass(frozen=True)
class Line:
    name: str
    path: str  # of the SVG
    latest: str
    highest: str


@dataclass(frozen=True)
class Chart:
    title: str
    lines: list[Line]
    top: str  # the value at the upper edge


@dataclass(frozen=True)
class Charts:
    began: datetime
    ended: datetime
    charts: list[Chart]


def _rate(*names: str) -> Value:
    return lambda sample: sum(sample[name] for name in names) / sample["covers"]


def _value(name: str) -> Value:
    return lambda sample: sample[name]


def _per_second(value: float) -> str:
    return f"{value:,.0f}/s" if value >= 10 else f"{value:.2g}/s"


def _milliseconds(value: float) -> str:
    return duration(value / 1000)


def _jobs(value: float) -> str:
    return f"{value:,.0f}"


_CHARTS: list[tuple[str, Callable[[float], str], dict[str, Value]]] = [
    ("Throughput", _per_second, {"succeeded": _rate("succeeded"), "failed or retried": _rate("failed", "retried")}),
    (
        "Latency",
        _milliseconds,
        {
            "run, median": _value("run_p50_ms"),
            "run, 95 %": _value("run_p95_ms"),
            "wait, 95 %": _value("wait_p95_ms"),
        },
    ),
    ("Jobs", _jobs, {"queued": _value("queued"), "running": _value("running"), "scheduled": _value("scheduled")}),
]


async def load(connection: AnyConnection, over: Range) -> Charts | None:
    """All charts over a range, or over the part of it in which there are samples; None: there are none."""
    found = await samples.read(connection, over.span, over.step)
    if not found:
        return None
    step = timedelta(seconds=over.step)
    latest = found[-1]["at"]
    began = max(found[0]["at"] - step, latest - timedelta(seconds=samples.KEPT[over.span]))
    return Charts(
        began, latest + step, [_chart(title, tell, values, found, began, step) for title, tell, values in _CHARTS]
    )


def _chart(
    title: str,
    tell: Callable[[float], str],
    values: dict[str, Value],
    found: list[dict[str, Any]],
    began: datetime,
    step: timedelta,
) -> Chart:
    points = {name: [(each["at"], value(each)) for each in found] for name, value in values.items()}
    top = _round_up(max((value for line in points.values() for _, value in line if value is not None), default=0.0))
    lines = []
    for name, line in points.items():
        told = [value for _, value in line if value is not None]
        last = line[-1][1]
        lines.append(
            Line(
                name,
                _path(line, began, step, top),
                "nothing" if last is None else tell(last),
                tell(max(told, default=0.0)),
            )
        )
    return Chart(title, lines, tell(top))


def _path(line: list[tuple[datetime, float | None]], began: datetime, step: timedelta, top: float) -> str:
    """A dot where the line begins, or goes on after a gap, and lines from there on."""
    drawn = []
    before: datetime | None = None
    across = (line[-1][0] - began) / WIDTH
    for at, value in line:
        if value is None or at < began:
            continue
        point = f"{round((at - began) / across)} {HEIGHT - round(HEIGHT * value / top)}"
        gap = before is None or at - before > PATIENCE * step
        drawn.append(f"M{point}h0" if gap else f"L{point}")
        before = at
    return "".join(drawn)


def _round_up(value: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    if value <= 0:
        return 1.0
    magnitude = 10.0 ** math.floor(math.log10(value))
    return next(edge * magnitude for edge in (1, 2, 5, 10) if edge * magnitude >= value * (1 - 1e-9))
