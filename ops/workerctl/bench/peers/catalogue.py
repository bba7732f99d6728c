"""The peers: which version, how it is started, how its queue is looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerctl.bench.peers import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

RUNNERS = Path(__file__).parent / "runners"


@dataclass(frozen=True, slots=True)
class Peer:
    """`newest` finds a job that is not finished, the newest first; `share` of the jobs are enough for a slow one."""

    name: str
    title: str
    version: str
    requirements: tuple[str, ...]
    clear: str
    newest: str
    share: float = 1.0
    environment: Mapping[str, str] = field(default_factory=dict)
    busy: Mapping[str, Any] = field(default_factory=dict)  # settings of a worker that shall be fast
    quick: Mapping[str, Any] = field(default_factory=dict)  # and of one that shall start soon
    javascript: bool = False

    async def runner(self) -> tuple[list[str], dict[str, str]]:
        """The command and the environment of its runner; installs it, if it is not yet. Raises UnavailableError."""
        try:
            return await self._runner(f"{self.name}-{self.version}")
        except OSError as error:
            raise environment.UnavailableError(str(error)) from error

    async def _runner(self, place: str) -> tuple[list[str], dict[str, str]]:
        if self.javascript:
            command, folder = await environment.node(place, self.requirements)
            return [*command, str(RUNNERS / f"run_{self.name}.mjs")], {
                **self.environment,
                "BENCH_ENVIRONMENT": str(folder),
            }
        command = await environment.python(place, self.requirements)
        return [*command, str(RUNNERS / f"run_{self.name}.py")], dict(self.environment)


PEERS = (
    Peer(
        "graphile_worker",
        "graphile-worker",
        "0.18.0",
        ("graphile-worker@0.18.0",),
        clear="TRUNCATE graphile_worker._private_jobs, graphile_worker._private_job_queues",
        newest="SELECT id FROM graphile_worker._private_jobs ORDER BY id DESC LIMIT 1",
        environment={"NO_LOG_SUCCESS": "1", "NODE_ENV": "production"},  # no line for each job
        busy={"refetch_delay": 10},
        javascript=True,
    ),
    Peer(
        "pgqueuer",
        "PgQueuer",
        "1.6.0",
        ("pgqueuer[asyncpg]==1.6.0", "uvloop==0.23.0"),
        clear="TRUNCATE pgqueuer, pgqueuer_log",
        newest="SELECT id FROM pgqueuer ORDER BY id DESC LIMIT 1",
        share=0.5,
    ),
    Peer(
        "procrastinate",
        "procrastinate",
        "3.10.0",
        ("procrastinate==3.10.0", "psycopg[binary,pool]", "uvloop==0.23.0"),
        clear="TRUNCATE procrastinate_jobs, procrastinate_events, procrastinate_periodic_defers",
        newest="SELECT id FROM procrastinate_jobs ORDER BY id DESC LIMIT 1",
        share=0.02,
    ),
    Peer(
        "awa_pg",
        "awa-pg",
        "0.6.9",
        ("awa-pg==0.6.9", "asyncpg==0.32.0", "uvloop==0.23.0"),
        clear="""
            TRUNCATE awa.ready_entries, awa.ready_segments, awa.ready_tombstones, awa.ready_claim_attempt_batches, awa.leases,
            awa.lease_claims, awa.lease_claim_batches, awa.lease_claim_closures, awa.lease_claim_closure_batches, awa.done_entries,
            awa.receipt_completion_batches, awa.receipt_completion_tombstones
        """,
        # its rows are only added: some are left while fewer are complete than were put in, both counted in batches
        newest="""
            SELECT 1 WHERE (SELECT sum(next_lane_seq - first_lane_seq) FROM awa.ready_segments)
                > (SELECT coalesce(sum(completed_count), 0) FROM awa.receipt_completion_batches)
        """,
        share=0.1,
    ),
)
