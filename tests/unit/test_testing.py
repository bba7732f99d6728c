"""`workerd.testing`: handlers run where the test is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.examples import examples
from workerd import Job, JobError, PayloadError, RetryAfter, Task, TaskError, testing
from workerd.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable


def _task(fn: Callable[..., Any], **options: Any) -> Task[..., Any]:
    """A task that is in no registry."""
    return Task(fn, fn.__name__, "default", 0, Retry(), None, None, **options)


async def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workerd.tasks.registry", {})
    names: dict[str, Any] = {"__name__": "testing-your-tasks.md"}
    exec(compile(examples("testing-your-tasks.md")[0], "page", "exec", dont_inherit=True), names)  # noqa: S102 - our page
    await names["test_an_order_is_shipped"]()


@pytest.mark.parametrize("cpu", [False, True])
async def test_a_plain_handler_has_its_job_without_awaiting(cpu: bool) -> None:
    def handler(name: str, *, job: Job) -> list[Any]:
        job.progress(1.0)
        return [job.step("one", str.upper, name), job.wait_for("answer"), job.attempt, job.retries_left]

    said = testing.Record()
    result = await testing.run(
        _task(handler, cpu=cpu), {"name": "a"}, answers={"answer": 5}, attempt=3, failures=1, max_retries=2, record=said
    )
    assert result == ["A", 5, 3, 1]
    assert (said.progress, said.steps) == ([(1.0, None)], ["one"])


async def test_progress_that_is_no_number_is_refused_and_a_message_is_written_as_text() -> None:
    async def handler(*, job: Job) -> list[str]:
        refused = []
        wrong: list[Any] = ["half", None, {}, 2, float("nan")]
        for fraction in wrong:
            try:
                await job.progress(fraction)
            except JobError as error:
                refused.append(str(error))
        await job.progress(1, {"page": 2})  # type: ignore[arg-type]
        return refused

    said = testing.Record()
    refused = await testing.run(_task(handler), record=said)
    assert refused[0] == "progress is 'half', allowed is a number from 0 to 1"
    assert (len(refused), said.progress) == (5, [(1.0, "{'page': 2}")])


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_step_is_done_once_and_may_be_a_coroutine(threaded: bool) -> None:
    done: list[str] = []

    async def step() -> int:
        done.append("step")
        return len(done)

    async def on_loop(*, job: Job) -> list[int]:
        return [await job.step("one", step), await job.step("one", step)]

    def in_thread(*, job: Job) -> list[int]:
        return [job.step("one", step), job.step("one", step)]

    assert await testing.run(_task(in_thread if threaded else on_loop)) == [1, 1]
    assert done == ["step"]


async def test_what_a_handler_raises_is_raised() -> None:
    async def handler() -> None:
        raise RetryAfter(60)

    with pytest.raises(RetryAfter):
        await testing.run(_task(handler))


async def test_arguments_that_do_not_fit_are_refused() -> None:
    async def handler(name: str) -> None: ...

    with pytest.raises(TaskError, match=r"the payload does not fit handler\(name: .*missing a required argument"):
        await testing.run(_task(handler))


async def test_a_result_that_is_no_json_is_refused() -> None:
    async def handler() -> object:
        return object()

    with pytest.raises(PayloadError, match="the result of handler is not JSON"):
        await testing.run(_task(handler))


@pytest.mark.parametrize("ask", [lambda job: job.wait_for("unknown"), lambda job: job.connection()])
async def test_what_there_is_not_is_named(ask: Callable[[Job], Any]) -> None:
    async def handler(*, job: Job) -> None:
        await ask(job)

    with pytest.raises(JobError, match=r"the handler waits for unknown|has no database"):
        await testing.run(_task(handler))
