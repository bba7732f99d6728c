"""What a node holds, by its own account."""

from __future__ import annotations

from tests.unit.support import claimed
from workerd.daemon.holdings import Holdings


def test_each_life_has_an_id_that_fits_the_database() -> None:
    ids = {Holdings().node for _ in range(100)}
    assert len(ids) == 100
    assert all(0 <= node < 2**63 for node in ids)
    assert Holdings(7).node == 7


def test_lease_numbers_are_never_used_twice_not_even_in_another_life() -> None:
    holdings = Holdings(1)
    assert [holdings.new_lease(), holdings.new_lease()] == [(1, 1), (1, 2)]
    holdings.reborn(9)
    assert holdings.new_lease() == (9, 3)


def test_tickets_are_held_from_keep_to_release() -> None:
    holdings, jobs = Holdings(1), [claimed(10, n=1), claimed(11, n=1), claimed(10, n=2)]
    holdings.keep(jobs)
    assert (holdings.tickets(1), holdings.tickets(2), holdings.tickets(3)) == ({10, 11}, {10}, set())
    holdings.release(jobs[0])
    holdings.release(jobs[0])
    assert (holdings.tickets(1), holdings.tickets(2)) == ({11}, {10})


def test_nothing_is_held_after_a_rebirth_and_old_jobs_release_nothing() -> None:
    holdings, old, new = Holdings(1), claimed(10, n=1), claimed(10, n=1, node=2)
    holdings.keep([old])
    assert holdings.reborn(2) == 1, "leases lost"
    assert holdings.tickets(1) == set()
    holdings.keep([new])
    holdings.release(old)
    assert holdings.tickets(1) == {10}


def test_a_split_job_is_held_in_both_leases_until_the_split_has_ended() -> None:
    holdings = Holdings(1)
    _, n = holdings.new_lease()
    job, other = claimed(10, n=n), claimed(11, n=n)
    holdings.keep([job, other])
    number = holdings.begin_split(job)
    assert number != n
    assert (holdings.tickets(n), holdings.tickets(number), job.n) == ({10, 11}, {10}, n)
    holdings.end_split(job)
    assert (holdings.tickets(n), holdings.tickets(number), job.n, job.split) == ({11}, {10}, number, None)
    holdings.release(job)
    assert holdings.tickets(number) == set()


def test_a_split_whose_answer_was_lost_keeps_its_number() -> None:
    holdings, job = Holdings(1), claimed(10)
    holdings.new_lease()
    holdings.keep([job])
    number = holdings.begin_split(job)
    assert holdings.begin_split(job) == number
    holdings.release(job)
    assert (holdings.tickets(1), holdings.tickets(number)) == (set(), set())


def test_ending_a_split_that_never_began_changes_nothing() -> None:
    holdings, job = Holdings(1), claimed(10)
    holdings.keep([job])
    holdings.end_split(job)
    assert (job.n, holdings.tickets(1)) == (1, {10})
