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
    busy: Mapping[str, Any] = field(default_factory=dict)  # settings of a worker that shall be fast
    quick: Mapping[str, Any] = field(default_factory=dict)  # and of one that shall start soon
    javascript: bool = False

    async def runner(self) -> tuple[list[str], dict[str, str]]:
        """The command and the environment of its runner; installs it, if it is not yet. Raises UnavailableError."""
        place = f"{self.name}-{self.version}"
        if self.javascript:
            command, folder = await environment.node(place, self.requirements)
            return [*command, str(RUNNERS / f"run_{self.name}.mjs")], {"BENCH_ENVIRONMENT": str(folder)}
        return [*await environment.python(place, self.requirements), str(RUNNERS / f"run_{self.name}.py")], {}


PEERS = (
    Peer(
        "graphile_worker",
        "graphile-worker",
        "0.18.0",
        ("graphile-worker@0.18.0",),
        clear="TRUNCATE graphile_worker._private_jobs, graphile_worker._private_job_queues",
        newest="SELECT id FROM graphile_worker._private_jobs ORDER BY id DESC LIMIT 1",
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
    ),
)
