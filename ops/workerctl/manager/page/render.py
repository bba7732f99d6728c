"""Templates: everything that is put into them is escaped."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jinja2
import orjson
from markupsafe import Markup

from workerd.units import format_duration

if TYPE_CHECKING:
    from workerctl.manager.page.visitor import Visitor

HERE = Path(__file__).parent
STATIC = HERE / "static"
NOTHING = "\N{EN DASH}"
SHOWN = 100_000  # characters of a payload or result that a page shows

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(name: str, visitor: Visitor | None, **values: Any) -> str:
    """A whole page."""
    return _environment.get_template(f"{name}.html").render(visitor=visitor, **values)


def live(name: str, **values: Any) -> str:
    """What changes of a page while it is looked at."""
    return _environment.get_template(f"live/{name}.html").render(**values)


def _when(moment: str | datetime | None) -> str | Markup:
    """A time, in UTC: the script of the page writes it in the reader's zone."""
    if moment is None:
        return NOTHING
    try:
        told = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    except ValueError:  # beyond the calendar
        return str(moment)
    text = told.strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}">{} UTC</time>').format(told.isoformat(timespec="milliseconds"), text)


def duration(seconds: float | None) -> str:
    """A duration for people, short."""
    if seconds is None:
        return NOTHING
    if seconds < 0.01:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else format_duration(float(round(seconds)))


def _milliseconds(value: float | None) -> str:
    return duration(None if value is None else value / 1000)


def _bytes(count: int | None) -> str:
    return NOTHING if count is None else f"{count / 1_000_000:,.0f} MB"


def _json(value: object) -> str:
    """For people; of what is very long the beginning."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}\n… {len(text) - SHOWN:,} further characters"


def _path(text: str) -> str:
    """A name as one part of an address."""
    return quote(text, safe="")


_environment.filters.update(
    when=_when,
    bytes=_bytes,
    duration=duration,
    milliseconds=_milliseconds,
    json=_json,
    path=_path,
    number=lambda value: f"{value:,}",
)
