"""Every state and outcome, with what it means: a test fails when the code knows one more, or one less."""

from __future__ import annotations

from typing import get_args

from tests.reference.page import code, page, table
from workerctl.manager.models import State as JobState
from workerd.daemon.status import State as DaemonState
from workerd.ended import How
from workerd.outcomes import Ending

JOBS = {
    "queued": "waits for a worker; in the order of priority, then of becoming queued",
    "running": "a node holds it under a lease",
    "scheduled": "its time has not come: enqueued for later, waits for its next attempt, or for an answer",
    "blocked": "waits for other jobs, see [dependencies](../dependencies.md)",
    "succeeded": "final: its result is kept for `RESULT_TTL`",
    "failed": "final: no retry was left, or none was wanted; kept for `FAILURE_TTL`, can be retried by hand",
    "cancelled": "final: by hand, by a deadline, or since a job that it waited for did not succeed",
}
ENDS = {
    "succeeded": "the handler returned",
    "retried": "it raised, ran past its timeout or its child process died, and a retry is left",
    "failed": "the same, and none is left or wanted",
    "cancelled": "somebody asked for it, and the handler has ended",
    "snoozed": "it raised `Snooze` or waits for an answer; counts no failure",
    "returned": "a daemon that stops or reloads gave it back; counts no failure",
}
ATTEMPTS = {
    "retry": "as `retried` above: how the record of a job, and the HTTP API for nodes, call it",
    "snooze": "as `snoozed`",
    "crashed": "its node died; counts a crash, no failure. After `MAX_CRASHES` of them the job is failed",
}
DAEMONS = {
    "starting": "connects, brings the schema up to date, runs what is to be done at the start",
    "running": "claims and runs jobs",
    "reloading": "a new process starts beside it; both may run jobs",
    "draining": "claims nothing more, finishes what runs",
    "stopped": "no such daemon runs: `status` exits 3",
}
NODES = {
    "alive": "its heartbeat comes",
    "draining": "the same, and it claims nothing more",
    "dead": "declared dead, or it left; its jobs are run elsewhere",
}
DATABASE = {
    "connecting": "at the start",
    "connected": "all is well",
    "reconnecting": "the server is down, restarts, has no free connection, or does not answer",
    "read-only": "a standby, or `default_transaction_read_only`",
    "refused": "user or password are refused",
    "disk full": "the server cannot write",
}


def text() -> str:
    assert JOBS.keys() == set(get_args(JobState))
    assert ENDS.keys() == set(get_args(How))
    assert ENDS.keys() | ATTEMPTS.keys() >= set(get_args(Ending))
    assert DAEMONS.keys() == set(get_args(DaemonState))
    return page(
        "States",
        "How jobs get from one to another is told in [how it works](../how-it-works.md).",
        _section("Jobs", "`jobs list --state`, the view `workerd.job`, `GET jobs?state=`.", JOBS),
        _section("Ends of attempts", "`on_end`, the label `outcome` of metrics.", ENDS),
        _section("Attempts on record", "`jobs show` has these besides.", ATTEMPTS),
        _section("Daemons", "`status --json`, `state`.", DAEMONS),
        _section("Nodes", "`nodes list`.", NODES),
        _section(
            "Connection to the database",
            "`status --json`, `database`, `state`; what to do is in [database](../database.md#trouble).",
            DATABASE,
        ),
    )


def _section(title: str, where: str, states: dict[str, str]) -> str:
    return f"## {title}\n\n{where}\n\n{table(('state', 'meaning'), ((code(k), v) for k, v in states.items()))}"
