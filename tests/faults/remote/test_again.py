"""What befalls daemons with a database befalls nodes that work through a manager: the same tests, the same ledger.

Left out are those whose handlers ask for a connection, and those of the leader: it is the manager here.
"""

from tests.faults.test_crashes import (
    test_a_job_that_kills_its_daemon_is_failed_and_none_of_those_claimed_with_it_is,
)
from tests.faults.test_fences import test_late_ends_of_a_daemon_that_was_declared_dead_change_nothing
from tests.faults.test_fleet import test_two_daemons_share_long_jobs_evenly
from tests.faults.test_health import (
    test_a_loop_that_stands_still_past_the_limit_ends_its_process_and_the_job_runs_elsewhere,
)
from tests.faults.test_logs import test_the_line_of_every_job_is_written_once_though_the_log_is_rotated_and_moved
from tests.faults.test_reload import (
    test_a_daemon_that_dies_while_its_successor_starts_is_succeeded,
    test_a_stop_ends_those_too_who_still_drain_after_a_reload,
    test_jobs_that_run_have_their_time_and_another_reload_meanwhile_is_allowed,
    test_ten_reloads_under_load_lose_nothing_and_are_not_noticed,
)

__all__ = [
    "test_a_daemon_that_dies_while_its_successor_starts_is_succeeded",
    "test_a_job_that_kills_its_daemon_is_failed_and_none_of_those_claimed_with_it_is",
    "test_a_loop_that_stands_still_past_the_limit_ends_its_process_and_the_job_runs_elsewhere",
    "test_a_stop_ends_those_too_who_still_drain_after_a_reload",
    "test_jobs_that_run_have_their_time_and_another_reload_meanwhile_is_allowed",
    "test_late_ends_of_a_daemon_that_was_declared_dead_change_nothing",
    "test_ten_reloads_under_load_lose_nothing_and_are_not_noticed",
    "test_the_line_of_every_job_is_written_once_though_the_log_is_rotated_and_moved",
    "test_two_daemons_share_long_jobs_evenly",
]
