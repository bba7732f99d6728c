"""The report: what was measured, on which machine; for people, for documents, for scripts."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil

from workerctl import render
from workerd import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    import asyncpg

    from workerctl.bench.figure import Figure

SHOWN = ("fsync", "synchronous_commit", "full_page_writes")  # off, they make a server fast that forgets
COLUMNS = ("measurement", "of", "median", "lowest", "highest", "unit")


class Report:
    """Figures of all repetitions, and where they come from."""

    def __init__(self, where: dict[str, Any], repeat: int, jobs: int, skipped: dict[str, str]) -> None:
        self._where = where
        self._skipped = skipped  # may still grow: a peer that fails is taken out
        self.versions: dict[str, str] = where["versions"]
        self._how = {"repeat": repeat, "jobs": jobs}
        self._figures: dict[str, list[Figure]] = {}

    def add(self, figures: Iterable[Figure]) -> None:
        """Take in what one measurement of one repetition has found."""
        for figure in figures:
            self._figures.setdefault(figure.key, []).append(figure)

    def value(self) -> dict[str, Any]:
        """As JSON: `figures` by key, each with every repetition's value in `runs`."""
        return {
            **self._where,
            **self._how,
            "skipped": self._skipped,
            "figures": {key: _summary(runs) for key, runs in self._figures.items()},
        }

    def markdown(self) -> str:
        """Facts as a list, figures as a table."""
        facts = [f"- {name}: {value}" for name, value in self._facts()]
        rows = [COLUMNS, ("---", "---", "--:", "--:", "--:", "---"), *self._rows()]
        return "\n".join([*facts, "", *(f"| {' | '.join(row)} |" for row in rows)])

    def show(self) -> None:
        """As tables on the terminal."""
        render.details("benchmark", self._facts())
        render.table("figures", COLUMNS, self._rows())

    def _facts(self) -> list[tuple[str, str]]:
        machine, versions, server = self._where["machine"], self._where["versions"], self._where["server"]
        return [
            ("machine", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB"),
            ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
            ("server", ", ".join(f"{name} {value}" for name, value in server.items())),
            ("repetitions", str(self._how["repeat"])),
            *((f"skipped {title}", reason) for title, reason in self._skipped.items()),
        ]

    def _rows(self) -> list[tuple[str, ...]]:
        rows = []
        for runs in sorted(self._figures.values(), key=self._place):
            values = [figure.value for figure in runs]
            shown = (_shown(value) for value in (median(values), min(values), max(values)))
            rows.append((runs[0].what, runs[0].who, *shown, runs[0].unit))
        return rows

    def _place(self, runs: list[Figure]) -> tuple[int, bool]:
        """What was measured of several stands together, and what was set in proportion after it."""
        first = [figures[0].what for figures in self._figures.values()]
        return first.index(runs[0].what), "_vs_" in runs[0].key


async def surroundings(connection: asyncpg.Connection[asyncpg.Record]) -> dict[str, Any]:
    """Machine, versions, and the settings of the server that decide whether a commit is durable."""
    postgres: str = await connection.fetchval("SHOW server_version")
    return {
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "memory_bytes": psutil.virtual_memory().total},
        "versions": {
            "Python": platform.python_version(),
            "PostgreSQL": postgres.partition(" ")[0],
            "workerd": __version__,
        },
        "server": {name: await connection.fetchval("SELECT current_setting($1)", name) for name in SHOWN},
    }


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()  # ARM's kernel names no model


def _summary(runs: list[Figure]) -> dict[str, Any]:
    values = [figure.value for figure in runs]
    return {
        "what": runs[0].what,
        "who": runs[0].who,
        "unit": runs[0].unit,
        "median": median(values),
        "min": min(values),
        "max": max(values),
        "runs": values,
    }


def _shown(value: float) -> str:
    """Three digits say all that a benchmark knows."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
