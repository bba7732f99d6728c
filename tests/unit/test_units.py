"""Durations and sizes as people write them, and as they are shown."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerd.units import Duration, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90", 90),
        ("0", 0),
        ("2.5", 2.5),
        ("350ms", 0.35),
        ("90s", 90),
        ("90 sec", 90),
        ("5m", 300),
        ("5 min", 300),
        ("2h", 7200),
        ("7d", 604800),
        ("1w", 604800),
        ("1h30m", 5400),
        ("2 H 14 Min", 8040),
        ("  1.5h ", 5400),
        (12, 12),
        (0.25, 0.25),
        (timedelta(minutes=1, milliseconds=500), 60.5),
    ],
)
def test_durations_are_read_as_people_write_them(written: Duration, seconds: float) -> None:
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "soon",
        "-5",
        "5x",
        "5 5",
        "1h30",
        "1.5.5",
        "1e3",
        "h",
        "5m!",
        "nan",
        "inf",
        -1,
        float("nan"),
        float("inf"),
        "9" * 400,
        timedelta(seconds=-1),
    ],
)
def test_what_is_no_duration_is_refused_with_the_value_and_advice(written: Duration) -> None:
    with pytest.raises(ValueError, match="is not a duration: ") as raised:
        parse_duration(written)
    assert repr(written) in str(raised.value)


@pytest.mark.parametrize("written", ["36526d", "5219w", 1e12, "9" * 300, timedelta(days=36526)])
def test_a_duration_beyond_what_the_database_can_add_to_its_clock_is_refused(written: Duration) -> None:
    with pytest.raises(ValueError, match="is not a duration: the longest is 36525d"):
        parse_duration(written)
    assert parse_duration("36525d") == 36525 * 86400


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("0", 0),
        (4096, 4096),
        ("512B", 512),
        ("500M", 500 * 1024**2),
        ("2G", 2 * 1024**3),
        ("2gb", 2 * 1024**3),
        ("1.5 GiB", 3 * 1024**3 // 2),
        (" 64 kib ", 65536),
        ("1T", 1024**4),
    ],
)
def test_sizes_are_read_as_people_write_them(written: str | int, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["", "M", "lots", "-1", "5X", "1,5G", "5 5", "1e9", "9" * 400, -1])
def test_what_is_no_size_is_refused_with_the_value_and_advice(written: str | int) -> None:
    with pytest.raises(ValueError, match="is not a size: use bytes, or 500M, 2G"):
        parse_size(written)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.35, "350 ms"),
        (0.9996, "1.0 s"),
        (12.44, "12.4 s"),
        (59.97, "1 min"),
        (60, "1 min"),
        (303, "5 min 3 s"),
        (3599.9, "1 h"),
        (8040, "2 h 14 min"),
        (7259, "2 h"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (365 * 86400, "365 d"),
    ],
)
def test_durations_are_shown_in_the_two_largest_units(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (61_131_981, "58.3 MiB"),
        (5 * 1024**4, "5120.0 GiB"),
    ],
)
def test_sizes_are_shown_with_a_unit(size: float, shown: str) -> None:
    assert format_size(size) == shown


@given(st.floats(min_value=0, max_value=10 * 365 * 86400))
def test_a_shown_duration_can_be_typed_in_again_and_is_hardly_off(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.06, abs=0.0006)
