"""When a silent node is declared dead."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from workerd.maintenance.rescuer import Suspicions
from workerd.queue.rescue import Sight

ALIVE = Sight(1, "a", datetime(2025, 1, 1, tzinfo=UTC), unlocked=False, silent=False, grace=1.0)
UNLOCKED = replace(ALIVE, unlocked=True)
SILENT = replace(ALIVE, silent=True)
BEATEN = replace(UNLOCKED, beat=ALIVE.beat + timedelta(seconds=5))


@pytest.mark.parametrize(
    ("seen", "dead_at"),
    [
        ([(0.0, ALIVE), (9.0, ALIVE)], None),
        ([(0.0, UNLOCKED)], None),  # a free lock alone is a suspicion
        ([(0.0, UNLOCKED), (0.75, UNLOCKED)], None),
        ([(0.0, UNLOCKED), (0.5, UNLOCKED), (1.0, UNLOCKED)], 1.0),
        ([(0.0, UNLOCKED), (0.75, BEATEN), (1.5, BEATEN)], None),  # a beat resets
        ([(0.0, UNLOCKED), (0.75, BEATEN), (1.75, BEATEN)], 1.75),
        ([(0.0, UNLOCKED), (0.75, ALIVE), (1.5, UNLOCKED), (2.25, UNLOCKED)], None),  # so does the lock, taken again
        ([(0.0, UNLOCKED), (0.75, None), (1.5, UNLOCKED)], None),  # and an absence
        ([(0.0, replace(UNLOCKED, grace=15.0)), (14.0, replace(UNLOCKED, grace=15.0))], None),  # after a restart
        ([(0.0, replace(UNLOCKED, grace=15.0)), (2.0, UNLOCKED)], 2.0),
        ([(0.0, SILENT)], 0.0),  # no beat for long is death, whatever the lock says
        ([(0.0, replace(SILENT, unlocked=True))], 0.0),
    ],
)
def test_a_node_is_dead_when(seen: list[tuple[float, Sight | None]], dead_at: float | None) -> None:
    suspicions = Suspicions()
    for now, sight in seen:
        dead = suspicions.confirmed([] if sight is None else [sight], 100.0 + now)
        assert dead == ([sight] if now == dead_at else []), f"at {now}"


def test_each_node_is_judged_by_its_own() -> None:
    suspicions = Suspicions()
    second = replace(UNLOCKED, id=2)
    assert suspicions.confirmed([UNLOCKED, ALIVE], 0.0) == []
    assert suspicions.confirmed([UNLOCKED, second], 0.75) == []
    assert suspicions.confirmed([UNLOCKED, second], 1.0) == [UNLOCKED]


def test_a_new_connection_begins_without_suspicions() -> None:
    Suspicions().confirmed([UNLOCKED], 0.0)
    assert Suspicions().confirmed([UNLOCKED], 60.0) == []


def test_it_says_when_the_next_suspicion_is_confirmed() -> None:
    suspicions = Suspicions()
    suspicions.confirmed([ALIVE], 0.0)
    assert suspicions.due == math.inf
    suspicions.confirmed([UNLOCKED, replace(UNLOCKED, id=2, grace=15.0)], 0.25)
    assert suspicions.due == 1.25
    assert suspicions.confirmed([UNLOCKED], 1.25) == [UNLOCKED]
    assert suspicions.due == math.inf
