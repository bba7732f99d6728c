"""A plugin of pytest that prints what the tests of a run cost: `make test-times` loads it.

Seconds are those of the wall clock, added up over the processes that run tests side by side. The time of a fixture is also part of the
time of the test that asked for it first.
"""

from __future__ import annotations

from collections import defaultdict
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

LINES = 20  # of each table
WORKER_KEY = "fixture_times"


class Times:
    """Collects the seconds of tests, and of fixtures with how often each was made."""

    def __init__(self) -> None:
        self.tests: dict[str, float] = defaultdict(float)
        self.fixtures: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))

    def add_fixtures(self, found: Mapping[str, tuple[float, int]]) -> None:
        for name, (seconds, times) in found.items():
            before = self.fixtures[name]
            self.fixtures[name] = before[0] + seconds, before[1] + times

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        began = perf_counter()
        try:
            return (yield)
        finally:
            name = f"{fixturedef.baseid}::{fixturedef.argname} ({fixturedef.scope})"
            self.add_fixtures({name: (perf_counter() - began, 1)})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.tests[report.nodeid] += report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """In a process of pytest-xdist: hand the fixtures to the one that prints; reports go there by themselves."""
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output[WORKER_KEY] = dict(self.fixtures)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.add_fixtures(getattr(node, "workeroutput", {}).get(WORKER_KEY, {}))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        files: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
        for test, seconds in self.tests.items():
            before = files[test.partition("::")[0]]
            files[test.partition("::")[0]] = before[0] + seconds, before[1] + 1
        tests = {test: (seconds, 1) for test, seconds in self.tests.items()}
        for title, found in (("files", files), ("fixtures", self.fixtures), ("tests", tests)):
            terminalreporter.section(f"slowest {title}: seconds, times")
            dearest = sorted(found.items(), key=lambda each: -each[1][0])[:LINES]
            for name, (seconds, times) in dearest:
                terminalreporter.write_line(f"{seconds:8.2f} {times:5d}  {name}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Times())
