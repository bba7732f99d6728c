"""Declaring tasks, and binding the arguments of their jobs."""

from __future__ import annotations

from typing import Any

import pytest

from workerd import Job, Retry, TaskError, task
from workerd.tasks import OPTIONS, registry

pytestmark = pytest.mark.usefixtures("own_registry")


def test_a_bare_decorator_names_the_task_after_the_function() -> None:
    @task
    async def send(to: str) -> str:
        """Send it."""
        return to

    assert registry == {"send": send}
    assert (send.name, send.queue, send.priority, send.timeout, send.result_ttl) == ("send", "default", 0, None, None)
    assert (send.retry, send.is_async, send.wants_job, send.__doc__) == (Retry(), True, False, "Send it.")


def test_options_are_taken_in_the_units_in_which_they_are_written() -> None:
    @task(name="mail.send", queue="mail", priority=5, retry=Retry(2), timeout="5m", result_ttl=0)
    def send(to: str, *, job: Job) -> None: ...

    assert registry == {"mail.send": send}
    assert (send.queue, send.priority, send.timeout, send.result_ttl) == ("mail", 5, 300.0, 0.0)
    assert (send.retry, send.is_async, send.wants_job, repr(send)) == (Retry(2), False, True, "<task mail.send>")


@pytest.mark.parametrize("number", [0, 7])
def test_a_number_is_short_for_a_retry(number: int) -> None:
    @task(retry=number)
    def send() -> None: ...

    assert send.retry == Retry(max=number)


def test_calling_a_task_runs_its_function_here() -> None:
    @task
    def double(n: int) -> int:
        return 2 * n

    assert double(21) == 42


def test_two_functions_of_one_name_are_refused_but_a_function_may_be_declared_again() -> None:
    def declare() -> None:
        @task(name="send")
        def first() -> None: ...

    declare()
    declare()
    with pytest.raises(TaskError, match=r"two tasks are named send: .*\.first and .*\.second"):

        @task(name="send")
        def second() -> None: ...

    assert registry["send"].fn.__name__ == "first"


def test_arguments_without_a_name_are_refused() -> None:
    with pytest.raises(TaskError, match=r"task f: \*numbers cannot be carried"):

        @task
        def f(*numbers: int) -> None: ...

    with pytest.raises(TaskError, match="task g: n cannot be given by name"):

        @task
        def g(n: int, /) -> None: ...

    assert registry == {}


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_a_parameter_named_like_an_option_of_enqueue_is_refused(option: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def f({option}): ...", scope)  # noqa: S102 - the name is the case
    with pytest.raises(TaskError, match=f"task f: the parameter {option} has the name of an option of enqueue"):
        task(scope["f"])
    assert registry == {}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": "soon"}, "timeout 'soon' is not a duration"),
        ({"result_ttl": -1}, "result_ttl -1 is not a duration"),
    ],
)
def test_a_wrong_duration_is_refused_with_the_name_of_the_task(options: dict[str, Any], says: str) -> None:
    with pytest.raises(TaskError, match=f"task f: {says}"):

        @task(**options)
        def f() -> None: ...


def test_a_payload_holds_the_arguments_by_their_names() -> None:
    @task
    def f(a: int, b: int = 2, *, c: int = 3, job: Job, **more: int) -> None: ...

    assert f.arguments.bind(1) == {"a": 1}
    assert f.arguments.bind(1, 5, c=6) == {"a": 1, "b": 5, "c": 6}
    assert f.arguments.bind(a=1, d=4, e=5) == {"a": 1, "d": 4, "e": 5}


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((), {"aa": 1, "d": 2}, "missing a required argument: 'a', and there is no argument 'aa', 'd'$"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"a": 2}, "multiple values for argument 'a'"),
        ((1,), {"nonsense": 2}, "got an unexpected keyword argument 'nonsense'"),
        ((1,), {"job": 2}, "got an unexpected keyword argument 'job'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(args: tuple[Any, ...], kwargs: dict[str, Any], says: str) -> None:
    @task
    def f(a: int, b: int = 2, *, job: Job) -> None: ...

    with pytest.raises(TaskError, match=f"^task f: {says}"):
        f.arguments.bind(*args, **kwargs)
