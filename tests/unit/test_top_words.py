"""Figures of the dashboard keep to their few characters."""

from __future__ import annotations

import pytest

from workerctl.top.words import number, short


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (-0.1, "0.0s"),
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (9.97, "10s"),
        (59.7, "1m00"),
        (3599, "59m59"),
        (3600, "1h00"),
        (86399, "23h59"),
        (90000, "1d1h"),
        (8640000, "100d0h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert short(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (9999, "9,999"),
        (10_000, "10.0k"),
        (99_999, "99.9k"),
        (123_456, "123k"),
        (999_999, "999k"),
        (1_234_567, "1.2M"),
        (123_456_789, "123M"),
    ],
)
def test_counts(count: int, text: str) -> None:
    assert number(count) == text
    assert len(number(count)) <= 5
