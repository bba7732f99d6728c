"""When schedules are due."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerd import TaskError, schedule
from workerd.rule import Kind, Rule, due_times
from workerd.schedules import named
from workerd.units import parse_duration

if TYPE_CHECKING:
    from workerd.rule import CatchUp
    from workerd.units import Duration

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def following(rule: Rule, moment: str, count: int) -> list[datetime]:
    found: list[datetime] = []
    last = at(moment)
    while len(found) < count:
        due = rule.next_after(last)
        assert due is not None
        found.append(due)
        last = due
    return found


@pytest.mark.parametrize(
    ("kind", "text", "tz", "moment", "due"),
    [
        ("cron", "0 6 * * mon", BERLIN, "2026-11-26T12:00+01:00", ["2026-11-30T06:00+01:00", "2026-12-07T06:00+01:00"]),
        ("cron", "*/20 * * * * *", "UTC", "2026-01-01T00:00:05Z", ["2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z"]),
        ("every", "15m", "UTC", "2026-01-01T00:07Z", ["2026-01-01T00:15Z", "2026-01-01T00:30Z"]),
        ("every", "1s", "UTC", "2026-01-01T00:00:00.5Z", ["2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"]),
    ],
)
def test_rules_of_each_kind(kind: Kind, text: str, tz: str, moment: str, due: list[str]) -> None:
    assert following(Rule(kind, text, tz), moment, len(due)) == [at(each) for each in due]


def test_a_fixed_time_is_due_once_a_day_whatever_the_clock_does() -> None:
    rule = Rule("cron", "30 2 * * *", BERLIN)
    spring = following(rule, "2026-03-28T12:00+01:00", 2)  # 02:30 does not exist on the 29th
    assert spring == [at("2026-03-29T03:00+02:00"), at("2026-03-30T02:30+02:00")]
    autumn = following(rule, "2026-10-24T12:00+02:00", 2)  # 02:30 exists twice on the 25th
    assert autumn == [at("2026-10-25T02:30+02:00"), at("2026-10-26T02:30+01:00")]


def test_a_rule_for_each_hour_is_due_in_both_of_a_doubled_one() -> None:
    hours = following(Rule("cron", "30 * * * *", BERLIN), "2026-10-25T01:00+02:00", 4)
    assert [(b - a) for a, b in itertools.pairwise(hours)] == [timedelta(hours=1)] * 3


def test_once_is_once() -> None:
    rule = Rule("at", "2026-01-01T00:00+00:00")
    assert rule.next_after(at("2025-12-31T23:00Z")) == at("2026-01-01T00:00Z")
    assert rule.next_after(at("2026-01-01T00:00Z")) is None


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("none", []), ("last", ["09:00"]), ("all", ["06:00", "07:00", "08:00", "09:00"])],
)
def test_what_becomes_of_missed_times(catch_up: CatchUp, expected: list[str]) -> None:
    rule = Rule("cron", "0 * * * *")
    times, following = due_times(rule, at("2026-01-01T06:00Z"), at("2026-01-01T09:30Z"), catch_up, 500)
    assert times == [at(f"2026-01-01T{each}Z") for each in expected]
    assert following == at("2026-01-01T10:00Z")


def test_a_year_of_seconds_is_caught_up_in_parts_and_the_last_is_found_at_once() -> None:
    rule, begin, now = Rule("every", "1s"), at("2025-01-01T00:00Z"), at("2026-01-01T00:00Z")
    times, following = due_times(rule, begin, now, "all", 500)
    assert (len(times), following) == (500, begin + timedelta(seconds=500))
    assert due_times(rule, begin, now, "last", 500) == ([now], now + timedelta(seconds=1))


def test_a_time_that_is_only_just_over_is_not_missed() -> None:
    rule = Rule("cron", "0 * * * *")
    times, _ = due_times(rule, at("2026-01-01T06:00Z"), at("2026-01-01T06:00:20Z"), "none", 500)
    assert times == [at("2026-01-01T06:00Z")]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"cron": "61 * * * *"}, "cron '61 \\* \\* \\* \\*' in 'UTC' cannot be"),
        ({"cron": "0 6 * * *", "tz": "Mars/Base"}, "'Mars/Base' cannot be"),
        ({"every": "0.1s"}, "the shortest interval is 1s"),
        ({"every": "often"}, "'often' is not a duration"),
        ({"at": datetime(2030, 1, 1)}, "at has no time zone"),  # noqa: DTZ001
        ({}, "give one of a cron expression, every= and at="),
        ({"cron": "* * * * *", "every": "1m"}, "give one of"),
        ({"every": "1m", "payload": []}, "payload is \\[\\], allowed is a dict"),
        ({"every": "1m", "catch_up": "some"}, "catch_up is 'some', allowed is none, last, all"),
    ],
)
def test_a_wrong_rule_is_one_line(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(TaskError, match=reason) as caught:
        schedule(options.pop("cron", None), **options)
    assert "\n" not in str(caught.value)


def test_two_schedules_of_a_task_need_names() -> None:
    with pytest.raises(TaskError, match="two of its schedules have the same name"):
        named("poll", [schedule(every="1m"), schedule(every="2m")])


@pytest.mark.parametrize(
    "every",
    [5415, 100_000, 1.25, timedelta(hours=1, minutes=30, seconds=15), timedelta(microseconds=1_000_001), "1h30m15s"],
)
def test_an_interval_is_kept_to_the_microsecond(every: Duration) -> None:
    assert parse_duration(schedule(every=every).rule.text) == parse_duration(every)


@given(
    every=st.floats(min_value=1, max_value=1e7) | st.sampled_from(["1.1s", "0.7m", "3.3333333s", "90.9s"]),
    begin=st.timedeltas(timedelta(days=-25_000), timedelta(days=80_000)),  # from 1970
)
def test_the_times_of_an_interval_follow_each_other_without_a_gap_or_a_double(
    every: Duration, begin: timedelta
) -> None:
    rule = schedule(every=every).rule
    times = [datetime(1970, 1, 1, tzinfo=UTC) + begin]
    for _ in range(50):
        following = rule.next_after(times[-1])
        assert following is not None
        times.append(following)
    step = timedelta(seconds=parse_duration(every))
    assert {later - earlier for earlier, later in itertools.pairwise(times[1:])} == {step}
    assert timedelta() < times[1] - times[0] <= step
