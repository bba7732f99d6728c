"""What running jobs ask of the manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from workerd.errors import JobError
from workerd.remote import wire, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.job_lines import JobLines
    from workerd.queue.claim import Claimed
    from workerd.queue.progress import Progress
    from workerd.remote.caller import Caller

LOGS = 30  # jobs whose lines one request carries
NO_DATABASE = (
    "this node works through a manager and has no connection to the database, which job.connection() and job.finish_in() need: "
    "declare the task with needs_database=True, then nodes that have one run it"
)


class HttpDesk:
    """The `Desk` of a node without a database."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def connection(self) -> NoReturn:
        raise JobError(NO_DATABASE)

    async def report(self, node: int, reports: Sequence[Progress]) -> None:
        body = words.Reports(reports=[wire.report_words(report) for report in reports])
        await self._caller.ask("POST", f"/api/v1/nodes/{node}/progress", body)

    async def keep_lines(self, node: int, logged: Sequence[tuple[Claimed, JobLines]]) -> None:
        for start in range(0, len(logged), LOGS):
            told = [(job, lines, list(lines.pending)) for job, lines in logged[start : start + LOGS]]
            body = words.Reports(
                logged=[words.Logged(**wire.held_words(job), lines=wire.line_words(lines)) for job, lines, _ in told]
            )
            await self._caller.ask("POST", f"/api/v1/nodes/{node}/progress", body)
            for _, lines, written in told:
                lines.written(written)

    async def steps(self, job: Claimed) -> dict[str, str]:
        found: dict[str, str] = await self._caller.ask("GET", self._of(job, "steps"), None, dict[str, str])
        return found

    async def keep_step(self, job: Claimed, name: str, result: str) -> str | None:
        body = words.StepDone(**wire.held_words(job), name=name, result=result)
        kept: words.StepKept = await self._caller.ask("POST", self._of(job, "steps"), body, words.StepKept)
        return kept.result

    async def look(self, job: Claimed, event: str, timeout: float) -> tuple[str | None, float | None]:
        body = words.Look(**wire.held_words(job), event=event, timeout=min(timeout, 1e9))
        found: words.Looked = await self._caller.ask("POST", self._of(job, "await"), body, words.Looked)
        return found.answer, found.left

    async def free_key(self, job: Claimed) -> None:
        assert job.key is not None
        await self._caller.ask("POST", self._of(job, "started"), words.Started(**wire.held_words(job), key=job.key))

    async def parents(self, job: Claimed) -> dict[int, Any]:
        found: dict[int, Any] = await self._caller.ask("GET", self._of(job, "parents"), None, dict[int, Any])
        return found

    @staticmethod
    def _of(job: Claimed, what: str) -> str:
        return f"/api/v1/nodes/{job.node}/jobs/{job.id}/{what}"
