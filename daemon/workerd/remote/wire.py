"""Between what the daemon works with and the words of the wire. The clocks of two hosts are not compared: times travel as ages."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from workerd.declaration import Declaration, Declared
from workerd.job_lines import JobLines, Line
from workerd.limit import Limit
from workerd.outcomes import Outcome
from workerd.queue.claim import Answer, Claimed, Wanted
from workerd.queue.finish import Finished
from workerd.queue.lane import Lane
from workerd.queue.tally import Tally
from workerd.remote import words
from workerd.rule import Rule
from workerd.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from workerd.queue.progress import Progress

PORTION = 2_000_000  # characters of results, errors and lines that one request carries
NO_LANE = Lane(0, "", 0)


def new_node(about: Any, node: int, workers: int, declared: Declared) -> words.NewNode:
    """`about` is a `Registration`."""
    return words.NewNode(
        id=node,
        name=about.name,
        pid=about.pid,
        version=about.version,
        heartbeat=about.heartbeat,
        queues=about.queues,
        workers=workers,
        runs=about.tasks,
        tasks=[task_words(each) for each in declared.tasks],
        ttls=declared.ttls,
    )


def task_words(task: Declaration) -> words.TaskWords:
    return words.TaskWords(
        name=task.name,
        queue=task.queue,
        priority=task.priority,
        max_retries=task.max_retries,
        sensitive=task.sensitive,
        rate=task.limit.rate,
        concurrency=task.limit.concurrency,
        limit_key=task.limit_key,
        on_failure=task.on_failure,
        schedules={
            name: words.TaskSchedule(
                kind=each.rule.kind,
                rule=each.rule.text,
                tz=each.rule.tz,
                payload=dict(each.payload),
                catch_up=each.catch_up,
                queue=each.queue,
                priority=each.priority,
            )
            for name, each in task.schedules.items()
        },
    )


def declaration(task: words.TaskWords) -> Declaration:
    """Raises TaskError for a rule that cannot be."""
    schedules = {
        name: Schedule(Rule(s.kind, s.rule, s.tz), s.payload, name, s.catch_up, s.queue, s.priority)
        for name, s in task.schedules.items()
    }
    return Declaration(
        task.name,
        task.queue,
        task.priority,
        task.max_retries,
        task.sensitive,
        Limit(task.rate, task.concurrency),
        task.limit_key,
        task.on_failure,
        schedules,
    )


def claim_words(wanted: Wanted, ended: Sequence[Finished]) -> words.Claim:
    return words.Claim(
        wait=0.0,
        n=wanted.n,
        lanes=[(lane.id, low) for lane, low in wanted.lanes],
        batch=wanted.batch,
        tasks=list(wanted.tasks),
        free=wanted.free,
        alone=wanted.alone,
        last_chance=wanted.last_chance,
        rest=wanted.rest,
        ends=[end_words(end) for end in ended],
    )


def claims_words(n: int, answer: Answer, held: list[bool]) -> words.Claims:
    now = monotonic()
    lane = None if answer.lane is None else answer.lane.id
    jobs = [
        words.ClaimedJob(
            pos=job.pos,
            id=job.id,
            task=job.task,
            waited=job.waited,
            payload=job.payload,
            attempt=job.attempt,
            failures=job.failures,
            crashes=job.crashes,
            max_retries=job.max_retries,
            key=job.key,
            options=job.options,
            start_in=None if job.start_by is None else job.start_by - now,
        )
        for job in answer.jobs
    ]
    return words.Claims(
        n=n, lane=lane, last=answer.last, jobs=jobs, held=held, oldest_xid=answer.oldest_xid, next_xid=answer.next_xid
    )


def answer(node: int, wanted: Wanted, told: words.Claims) -> Answer:
    if told.lane is None:
        return Answer(None, told.last, [], told.oldest_xid, told.next_xid)
    lane, now = next(lane for lane, _ in wanted.lanes if lane.id == told.lane), monotonic()
    jobs = [
        Claimed(
            node,
            told.n,
            lane,
            job.pos,
            job.id,
            job.task,
            job.waited,
            job.payload,
            job.attempt,
            job.failures,
            job.crashes,
            job.max_retries,
            job.key,
            job.options,
            None if job.start_in is None else now + job.start_in,
        )
        for job in told.jobs
    ]
    return Answer(lane, told.last, jobs, told.oldest_xid, told.next_xid)


def held_words(job: Claimed) -> dict[str, Any]:
    return {"n": job.n, "pos": job.pos, "id": job.id, "attempt": job.attempt, "split": job.split}


def claimed(node: int, held: words.Held) -> Claimed:
    """As far as it is told of what is held; `options` are there, so that nothing is left out that one may leave behind."""
    return Claimed(node, held.n, NO_LANE, held.pos, held.id, "", 0.0, "", held.attempt, options={}, split=held.split)


def end_words(end: Finished) -> words.End:
    return words.End(
        **held_words(end.job),
        outcome=end.outcome.ending,
        result=end.outcome.result,
        error=end.outcome.error,
        delay=end.outcome.delay,
        ago=max(0.0, monotonic() - end.started),
        ran=max(0.0, end.ran),
        ttl=end.ttl,
        progress=end.progress,
        lines=line_words(end.lines),
    )


def finish_words(ended: Sequence[Finished]) -> words.Finish:
    return words.Finish(ends=[end_words(end) for end in ended])


def finished(node: int, end: words.End) -> Finished:
    outcome = Outcome(end.outcome, end.result, end.error, end.delay)
    return Finished(
        claimed(node, end),
        outcome,
        monotonic() - end.ago,
        end.ran,
        end.ttl,
        end.progress,
        lines=job_lines(end.lines) if end.lines else None,
    )


def portions(ended: Sequence[Finished]) -> list[list[Finished]]:
    """The same ends in their order, in lists that one request can carry; at least one, which may be empty."""
    found: list[list[Finished]] = [[]]
    size = 0
    for end in ended:
        own = sum(len(text) for text in (end.outcome.result, end.outcome.error) if text is not None)
        own += sum(len(line.message) for line in (end.lines.pending if end.lines is not None else ()))
        if found[-1] and size + own > PORTION:
            found.append([])
            size = 0
        size += own
        found[-1].append(end)
    return found


def line_words(lines: JobLines | None) -> list[words.LogLine]:
    now = monotonic()
    return [
        words.LogLine(number=line.number, age=max(0.0, now - line.at), level=line.level, message=line.message)  # type: ignore[arg-type]
        for line in (lines.pending if lines is not None else ())
    ]


def job_lines(lines: Iterable[words.LogLine]) -> JobLines:
    now = monotonic()
    return JobLines([Line(line.number, now - line.age, line.level, line.message) for line in lines])


def report_words(report: Progress) -> words.Report:
    return words.Report(**held_words(report.job), fraction=report.fraction, message=report.message)


def tally_words(task: str, queue: str, tally: Tally) -> words.TallyWords:
    return words.TallyWords(
        task=task,
        queue=queue,
        succeeded=tally.succeeded,
        failed=tally.failed,
        cancelled=tally.cancelled,
        retried=tally.retried,
        run=tally.run,
        wait=tally.wait,
    )


def tally(told: words.TallyWords) -> Tally:
    return Tally(told.succeeded, told.failed, told.cancelled, told.retried, told.run, told.wait)
