"""Pauses before further tries."""

from __future__ import annotations

from workerd.aio import Backoff


def test_pauses_double_up_to_the_limit_and_begin_again_after_a_success() -> None:
    backoff = Backoff(2.0)
    assert [backoff.next() for _ in range(7)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    backoff.reset()
    assert [backoff.next(), backoff.next()] == [0.0, 0.1]


def test_the_first_pause_may_be_one() -> None:
    backoff = Backoff(2.0, first=0.1)
    assert [backoff.next() for _ in range(3)] == [0.1, 0.2, 0.4]
    backoff.reset()
    assert backoff.next() == 0.1


def test_one_failure_may_have_another_limit() -> None:
    backoff = Backoff(2.0)
    assert [backoff.next(30.0) for _ in range(7)][-1] == 3.2
    assert [backoff.next(), backoff.next()] == [6.4, 2.0]
