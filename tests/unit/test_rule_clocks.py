"""When cron expressions are due where the clock changes, against a look at every minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from workerd.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOCKS = [  # a zone, and a day before its clock changes
    ("Australia/Lord_Howe", "2026-04-04"),
    ("Australia/Lord_Howe", "2026-10-03"),  # by half an hour
    ("Asia/Kathmandu", "1985-12-31"),  # by 15 minutes
    ("Antarctica/Troll", "2026-03-28"),
    ("Antarctica/Troll", "2026-10-24"),  # by two hours
    ("America/Sao_Paulo", "2018-11-03"),
    ("Asia/Beirut", "2026-10-24"),  # at midnight
    ("Europe/London", "1947-05-10"),  # from one summer time to the next
    ("Pacific/Apia", "2011-12-29"),  # by a day
    ("Europe/Berlin", "2026-03-28"),
    ("Europe/Berlin", "2026-10-24"),
]
EXPRESSIONS = [
    "*/15 * * * *",
    "30 * * * *",
    "0 */2 * * *",
    "*/10 2 * * *",
    "0 2 * * *",
    "0,15,45 2 * * *",
    "30 0 * * *",
    "59 23 * * *",
]


def _minute_by_minute(expression: str, zone: ZoneInfo, begin: datetime, end: datetime) -> Iterator[datetime]:
    """A fixed time at the first minute that shows it, or, when the clock has left it out, at the first one behind."""
    fields = CronSim(expression, begin)
    fixed = not any(field.startswith("*") for field in expression.split()[:2])
    seen: set[datetime] = set()
    before = begin.astimezone(zone).replace(tzinfo=None)
    moment = begin
    while moment < end:
        moment += timedelta(minutes=1)
        wall = moment.astimezone(zone).replace(tzinfo=None)
        skipped = max(0, int((wall - before).total_seconds()) // 60 - 1) if fixed else 0
        walls = {wall - timedelta(minutes=n) for n in range(skipped + 1)} - (seen if fixed else set())
        if any(each.minute in fields.minutes and each.hour in fields.hours for each in walls):
            yield moment
        seen |= walls
        before = wall


@pytest.mark.parametrize(("name", "day"), CLOCKS)
def test_a_cron_expression_is_due_as_the_clock_shows_it_minute_by_minute(name: str, day: str) -> None:
    zone, begin = ZoneInfo(name), datetime.fromisoformat(day).replace(tzinfo=UTC)
    end = begin + timedelta(days=2)
    wrong = {}
    for expression in EXPRESSIONS:
        rule, found = Rule("cron", expression, name), [begin]
        while (due := rule.next_after(found[-1])) is not None and due <= end:
            found.append(due)
        expected = list(_minute_by_minute(expression, zone, begin, end))
        if found[1:] != expected:
            wrong[expression] = sorted({*found[1:]} ^ {*expected})
    assert wrong == {}
