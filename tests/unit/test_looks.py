"""What the soak test takes for a leak."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.look import GROWTH, IDLE_THREADS, Look, differences, leaks

BASE = Look(rss=40_000_000, files=30, threads=3, tasks=24, connections=4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"rss": BASE.rss + GROWTH}, []),
        ({"rss": BASE.rss - GROWTH}, []),
        ({"rss": BASE.rss + GROWTH + 1}, [f"{(BASE.rss + GROWTH) / 1e6:.1f} MB, not 40.0"]),
        ({"files": 31}, ["31 files, not 30"]),
        ({"threads": BASE.threads + IDLE_THREADS}, []),
        ({"threads": 7}, ["7 threads, not 3"]),
        ({"tasks": 23}, ["23 tasks, not 24"]),
        ({"connections": 5, "files": 31}, ["31 files, not 30", "5 connections, not 4"]),
    ],
)
def test_memory_may_differ_a_little_and_other_counts_not_at_all(change: dict[str, int], told: list[str]) -> None:
    assert differences(BASE, replace(BASE, **change)) == told


def test_successors_after_the_third_are_compared_with_it() -> None:
    first = replace(BASE, rss=30_000_000, files=28)
    assert leaks([first, first, BASE, BASE, replace(BASE, tasks=25)]) == ["successor 5 has 25 tasks, not 24"]
