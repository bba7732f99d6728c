"""What containers print, read as one log."""

from __future__ import annotations

import heapq
import queue
import re
import threading
from typing import TYPE_CHECKING

from workerctl.log_files import BEGINS
from workerctl.runtimes.containers import refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker.models.containers import Container

    from workerctl.runtimes.containers import Containers

FIRST_LOOK = 1000  # lines; more are read when not enough of them are wanted
_TIME = re.compile(r'\{"ts":"([^"]+)"|(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.\d]*)')
_SERIOUS = re.compile(r'\{.*?"level":"(WARNING|ERROR|CRITICAL)"|\S+ \S+ (WARNING|ERROR|CRITICAL) ')


def last(containers: list[Container], most: int, wanted: Callable[[str], bool], until: float) -> list[str]:
    """The last `most` records of all of them up to a moment that are wanted, in the order of their times."""
    each = [_timed(_last_of(container, most, wanted, until)) for container in containers]
    merged = heapq.merge(*each, key=lambda timed: timed[0])
    return [record for _, record in merged][-most:] if most else []


def new(containers: Containers, running: list[Container], wanted: Callable[[str], bool], since: float) -> Iterator[str]:
    """The lines that these have printed since a moment, and those of every container that is started after it; for ever."""
    lines = queue.SimpleQueue[str | Exception]()

    def pump(source: Callable[[], Iterator[str]]) -> None:
        try:
            for line in source():
                lines.put(line)
        except Exception as error:  # noqa: BLE001 - raised where the lines are read
            lines.put(error)

    def begin(source: Callable[[], Iterator[str]]) -> None:
        threading.Thread(target=pump, args=(source,), daemon=True).start()

    def those_that_start() -> Iterator[str]:
        for container, moment in containers.starts(since):
            begin(lambda container=container, moment=moment: _following(container, wanted, moment))  # type: ignore[misc]
        yield from ()

    begin(those_that_start)
    for container in running:
        begin(lambda container=container: _following(container, wanted, since))  # type: ignore[misc]
    while True:
        line = lines.get()
        if isinstance(line, Exception):
            raise line
        yield line


def serious(record: str) -> bool:
    """Whether a record is a warning or an error."""
    return _SERIOUS.match(record) is not None


def _last_of(container: Container, most: int, wanted: Callable[[str], bool], until: float) -> list[str]:
    tail = max(most, FIRST_LOOK)
    while most:
        with refusals():
            text = container.logs(tail=tail, until=until).decode(errors="replace")
        lines = text.splitlines()
        found = [record for record in _records(lines) if wanted(record)]
        if len(found) >= most or len(lines) < tail:
            return found[-most:]
        tail *= 10
    return []


def _records(lines: list[str]) -> list[str]:
    """Lines put together to records: further lines of one are those of a traceback."""
    found: list[list[str]] = []
    for line in lines:
        if BEGINS.match(line) or not found:
            found.append([])
        found[-1].append(line)
    return ["\n".join(record) for record in found]


def _timed(records: list[str]) -> list[tuple[str, str]]:
    """Records with their times as text; one without a time has that of the one before it."""
    moment = ""
    timed = []
    for record in records:
        found = _TIME.match(record)
        moment = (found[1] or found[2]) if found else moment
        timed.append((moment, record))
    return timed


def _following(container: Container, wanted: Callable[[str], bool], since: float) -> Iterator[str]:
    """Lines from a moment on, as they are printed, until the container ends."""
    took = False
    rest = b""
    with refusals():
        for part in container.logs(stream=True, follow=True, since=since):
            *lines, rest = (rest + part).split(b"\n")
            for line in (each.decode(errors="replace") for each in lines):
                took = wanted(line) if BEGINS.match(line) else took
                if took:
                    yield line
