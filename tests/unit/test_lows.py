"""Where the next claim begins to look, and when it looks from the beginning."""

from __future__ import annotations

import math

import pytest

from tests.unit.support import Clock
from workerd.daemon.lows import LEAST, MOST, SHARE, Lows
from workerd.queue.claim import BEGINNING
from workerd.queue.lane import Lane

HIGH, LOW, LOW2 = Lane(1, "a", 5), Lane(2, "a", 0), Lane(3, "b", 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("workerd.daemon.lows.monotonic", clock)
    return clock


def swept(*lanes: Lane) -> Lows:
    """Bounds after a sweep that found nothing."""
    lows = Lows()
    lows.set_lanes(list(lanes))
    lows.targets()
    lows.learn(None, BEGINNING, 0.0)
    return lows


def bounds(lows: Lows) -> dict[Lane, int]:
    return dict(lows.targets())


def sweeps(lows: Lows) -> bool:
    """Whether the next claim looks at the lane from the beginning, its bound being known."""
    return set(bounds(lows).values()) == {BEGINNING}


def test_the_first_claim_looks_at_all_lanes_from_the_beginning() -> None:
    lows = Lows()
    lows.set_lanes([HIGH, LOW])
    assert lows.targets() == [(HIGH, BEGINNING), (LOW, BEGINNING)]


def test_the_next_claim_begins_after_the_last_ticket_looked_at(clock: Clock) -> None:
    lows = swept(HIGH, LOW)
    lows.targets()
    lows.learn(LOW, 41, 0.0)
    assert bounds(lows) == {HIGH: BEGINNING, LOW: 42}
    lows.learn(None, BEGINNING, 0.0)
    assert bounds(lows) == {HIGH: BEGINNING, LOW: 42}


def test_a_rewind_lowers_a_bound_and_never_raises_it(clock: Clock) -> None:
    lows = swept(LOW)
    lows.targets()
    lows.learn(LOW, 41, 0.0)
    lows.rewind(LOW.id, 50)
    assert bounds(lows) == {LOW: 42}
    lows.rewind(LOW.id, 20)
    lows.rewind(LOW.id, 30)
    assert bounds(lows) == {LOW: 20}


@pytest.mark.parametrize(("rewound", "last", "expected"), [([10], 41, 10), ([30, 10], 41, 10), ([60], 41, 42)])
def test_a_rewind_during_a_claim_outlasts_its_answer(
    clock: Clock, rewound: list[int], last: int, expected: int
) -> None:
    lows = swept(LOW)
    lows.targets()
    for pos in rewound:
        lows.rewind(LOW.id, pos)
    lows.learn(LOW, last, 0.0)
    assert bounds(lows) == {LOW: expected}
    lows.learn(LOW, 70, 0.0)
    assert bounds(lows) == {LOW: 71}


def test_a_rewind_of_another_lane_during_a_claim_counts_as_well(clock: Clock) -> None:
    lows = swept(HIGH, LOW)
    lows.targets()
    lows.learn(LOW, 41, 0.0)
    lows.targets()
    lows.rewind(LOW.id, 7)
    lows.learn(HIGH, 99, 0.0)
    assert bounds(lows) == {HIGH: 100, LOW: 7}


def test_lanes_come_by_priority_and_equals_in_turn(clock: Clock) -> None:
    lows = swept(LOW, LOW2, HIGH)
    for served, expected in ((LOW, [HIGH, LOW2, LOW]), (LOW2, [HIGH, LOW, LOW2]), (HIGH, [HIGH, LOW, LOW2])):
        lows.targets()
        clock.now += 0.001
        lows.learn(served, 1, 0.0)
        assert [lane for lane, _ in lows.targets()] == expected


@pytest.mark.parametrize(
    ("took", "pause"), [(0.004, 0.004 * SHARE), (0.0, LEAST), (0.00001, LEAST), (0.5, MOST), (30.0, MOST)]
)
def test_a_wanted_sweep_waits_so_that_sweeps_take_a_small_share_of_the_time(
    clock: Clock, took: float, pause: float
) -> None:
    lows = Lows()
    lows.set_lanes([LOW])
    lows.targets()
    lows.learn(LOW, 41, took)
    assert lows.wants_sweep_at == pytest.approx(clock.now + MOST)
    lows.want_sweep()
    assert lows.wants_sweep_at == pytest.approx(clock.now + pause)
    clock.now += pause * 0.99
    assert not sweeps(lows)
    lows.learn(LOW, 42, 10.0)  # a claim that swept nothing puts nothing off
    clock.now += pause * 0.02
    assert sweeps(lows)


def test_a_sweep_is_made_now_and_then_though_nobody_wants_one(clock: Clock) -> None:
    lows = swept(LOW)
    lows.targets()
    lows.learn(LOW, 41, 0.0)
    clock.now += MOST * 0.99
    assert not sweeps(lows)
    clock.now += MOST * 0.02
    assert sweeps(lows)


def test_a_sweep_lasts_until_every_lane_was_looked_at(clock: Clock) -> None:
    lows = swept(HIGH, LOW)
    for lane in (HIGH, LOW):
        lows.targets()
        lows.learn(lane, 41, 0.0)
    lows.want_sweep()
    clock.now += MOST
    assert bounds(lows) == {HIGH: BEGINNING, LOW: BEGINNING}
    lows.learn(HIGH, 50, 0.0)
    assert bounds(lows) == {HIGH: 51, LOW: BEGINNING}
    lows.learn(LOW, 60, 0.0)
    assert bounds(lows) == {HIGH: 51, LOW: 61}


def test_a_busy_lane_is_swept_again_though_lower_ones_were_not_reached(clock: Clock) -> None:
    lows = Lows()
    lows.set_lanes([HIGH, LOW])
    lows.targets()
    lows.learn(HIGH, 1, 0.001)
    begins = []
    for last in range(2, 3000):  # one claim after the other for three seconds, all of them answered by the busy lane
        clock.now += 0.001
        begins.append(bounds(lows)[HIGH])
        lows.learn(HIGH, last, 0.001)
    assert begins.count(BEGINNING) == 2


def test_a_lane_that_is_paused_during_a_sweep_does_not_put_off_the_next(clock: Clock) -> None:
    lows = Lows()
    lows.set_lanes([HIGH, LOW])
    lows.targets()
    lows.learn(HIGH, 1, 0.001)
    lows.set_lanes([HIGH])
    lows.want_sweep()
    begins = []
    for last in range(2, 200):
        clock.now += 0.001
        begins.append(bounds(lows)[HIGH])
        lows.learn(HIGH, last, 0.001)
    assert BEGINNING in begins


def test_a_new_lane_and_a_new_connection_want_a_sweep(clock: Clock) -> None:
    lows = swept(LOW)
    assert lows.set_lanes([LOW, LOW2])
    assert lows.wants_sweep_at == pytest.approx(clock.now + LEAST)
    lows = swept(LOW)
    assert not lows.set_lanes([LOW])
    assert lows.wants_sweep_at == pytest.approx(clock.now + MOST)
    lows.targets()
    lows.learn(LOW, 41, 30.0)
    lows.clear()
    assert sweeps(lows)


def test_no_sweep_is_due_once_no_transaction_is_left_that_could_commit_a_ticket_drawn_before(clock: Clock) -> None:
    lows = swept(LOW)
    lows.settled = True
    assert lows.wants_sweep_at == math.inf
    lows.want_sweep()
    assert lows.wants_sweep_at == pytest.approx(clock.now + LEAST)
