"""`@task`: the registry of functions that jobs may call."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack, overload

from workerd import bounds, handler
from workerd.arguments import Arguments
from workerd.asked import DEFINITIONS, explained
from workerd.errors import TaskError
from workerd.limit import UNLIMITED, Limit
from workerd.on_failure import check
from workerd.resources import used
from workerd.retry import Retry
from workerd.schedules import Schedule, named
from workerd.units import Duration, parse_duration, parse_rate, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from workerd.asked import BatchOptions, EnqueueOptions
    from workerd.job import AnyTransaction
    from workerd.typed import Takes1, Takes2, Takes3, Takes4

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

# Keywords of every enqueue: a handler's parameter of the same name could never be given.
OPTIONS = frozenset({"connection", *DEFINITIONS})

registry: dict[str, Task[..., Any]] = {}


class Task(Generic[P, R]):
    """A registered function. Calling it runs it here; `enqueue` makes a job of the call."""

    def __init__(
        self,
        fn: Callable[P, R],
        name: str,
        queue: str,
        priority: int,
        retry: Retry,
        timeout: float | None,
        result_ttl: float | None,
        cpu: bool = False,
        memory: int | None = None,
        limit: Limit = UNLIMITED,
        limit_key: str | None = None,
        schedules: Mapping[str, Schedule] | None = None,
        on_failure: str | None = None,
        sensitive: bool = False,
        needs_database: bool = False,
    ) -> None:
        self.fn = fn
        self.name = name
        self.queue = queue
        self.priority = priority
        self.retry = retry
        self.timeout = timeout  # seconds; None: the setting JOB_TIMEOUT
        self.result_ttl = result_ttl  # seconds; None: the setting RESULT_TTL; 0: a success leaves no row
        self.cpu = cpu  # runs in a process of its own
        self.memory = memory  # bytes that it may take there; None: no limit
        self.limit = limit
        self.schedules = schedules or {}  # by their names
        self.on_failure = on_failure  # the name of the task that is told of its failures
        self.sensitive = sensitive  # what its jobs carry is not shown to those who may only read
        self.needs_database = needs_database  # is not run by nodes that work through a manager
        self.limit_key = limit_key  # the argument by whose values its jobs take turns, each with the limit
        self.is_async = handler.is_async(fn)
        signature = handler.check(name, fn)
        self.resources = used(signature)  # by their parameters
        self.wants_job = "job" in signature.parameters
        self.arguments = Arguments(name, fn, {"job", *self.resources}, OPTIONS)
        self.__doc__ = fn.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    # What the type checkers see of `enqueue`: see `workerd.typed`.
    @overload
    async def enqueue(self, *, connection: AnyTransaction | None = None, **options: Unpack[EnqueueOptions]) -> int: ...
    @overload
    async def enqueue(self, **named: Any) -> int: ...
    @overload
    async def enqueue(self: Takes1[A], a: A, /, **named: Any) -> int: ...
    @overload
    async def enqueue(self: Takes2[A, B], a: A, b: B, /, **named: Any) -> int: ...
    @overload
    async def enqueue(self: Takes3[A, B, C], a: A, b: B, c: C, /, **named: Any) -> int: ...
    @overload
    async def enqueue(self: Takes4[A, B, C, D], a: A, b: B, c: C, d: D, /, *more: Any, **named: Any) -> int: ...
    @explained  # type: ignore[misc]  # a task is what the overloads take it for
    async def enqueue(self, *args: Any, **kwargs: Any) -> int:
        """Enqueue a call with these arguments and return the job's id; with `connection` it exists when that commits."""
        from workerd.queue import default_queue, transactions

        payload, options = self._call(args, kwargs)
        if options.get("connection") is not None:
            return await transactions.enqueue(self, payload, **options)
        return await (await default_queue.default()).enqueue(self, payload, **options)

    @overload
    def enqueue_sync(self, *, connection: AnyTransaction | None = None, **options: Unpack[EnqueueOptions]) -> int: ...
    @overload
    def enqueue_sync(self, **named: Any) -> int: ...
    @overload
    def enqueue_sync(self: Takes1[A], a: A, /, **named: Any) -> int: ...
    @overload
    def enqueue_sync(self: Takes2[A, B], a: A, b: B, /, **named: Any) -> int: ...
    @overload
    def enqueue_sync(self: Takes3[A, B, C], a: A, b: B, c: C, /, **named: Any) -> int: ...
    @overload
    def enqueue_sync(self: Takes4[A, B, C, D], a: A, b: B, c: C, d: D, /, *more: Any, **named: Any) -> int: ...
    @explained  # type: ignore[misc]
    def enqueue_sync(self, *args: Any, **kwargs: Any) -> int:
        """The same for code that does not await; `connection` is a synchronous one."""
        from workerd.queue import sync_client

        payload, options = self._call(args, kwargs)
        if options.get("connection") is not None:
            return sync_client.enqueue_in(self, payload, **options)
        return sync_client.default().enqueue(self, payload, **options)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The payload and the options of an enqueue."""
        options = {name: kwargs.pop(name) for name in OPTIONS & kwargs.keys()} if kwargs else {}
        return self.arguments.bind(*args, **kwargs), options

    async def enqueue_many(
        self,
        payloads: Sequence[Mapping[str, Any]],
        *,
        connection: AnyTransaction | None = None,
        **options: Unpack[BatchOptions],
    ) -> list[int]:
        """Enqueue one job for each payload (a mapping of argument names); options as in `Queue.enqueue_many`."""
        from workerd.queue import default_queue

        queue = await default_queue.default()
        bound = [self.arguments.bind(**payload) for payload in payloads]
        return await queue.enqueue_many(self, bound, connection=connection, **options)


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    queue: str = "default",
    priority: int = 0,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    result_ttl: Duration | None = None,
    cpu: bool = False,
    memory: str | int | None = None,
    limit: str | float | None = None,
    concurrency: int | None = None,
    limit_key: str | None = None,
    schedule: Schedule | Sequence[Schedule] | None = None,
    on_failure: Task[..., Any] | str | None = None,
    sensitive: bool = False,
    needs_database: bool = False,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = "default",
    priority: int = 0,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    result_ttl: Duration | None = None,
    cpu: bool = False,
    memory: str | int | None = None,
    limit: str | float | None = None,
    concurrency: int | None = None,
    limit_key: str | None = None,
    schedule: Schedule | Sequence[Schedule] | None = None,
    on_failure: Task[..., Any] | str | None = None,
    sensitive: bool = False,
    needs_database: bool = False,
) -> Any:
    """Register a function as a task. Its name is the function's unless given. Raises TaskError for a wrong declaration.

    `cpu=True` runs a plain `def` in a child process, which is killed at its timeout; `memory` (bytes, `500M`) is what it may take there.
    `limit` (`10/s`, `100/m`) is how many of its jobs start, `concurrency` how many run at a time, in the whole fleet. With `limit_key`, the
    name of an argument, each value of that has these limits to itself, and jobs of different values take turns.
    `on_failure` is the task of which a job is enqueued when one of this task has failed for good. `sensitive`: who
    may only read does not see its arguments and results in the manager. `needs_database`: its jobs use `job.connection()` or
    `job.finish_in()`, so nodes that reach the database through a manager alone do not run them.
    """

    def register(fn: Callable[..., Any]) -> Task[..., Any]:
        title = handler.title(fn) if name is None else name
        bounds.check_name("the name of a task", title)
        bounds.check_name(f"task {title}: queue", queue)
        bounds.check_whole(f"task {title}: priority", priority, bounds.PRIORITIES)
        declared = Task(
            fn,
            title,
            queue,
            priority,
            Retry(retry) if isinstance(retry, int) else retry or Retry(),
            _duration(title, "timeout", timeout),
            _duration(title, "result_ttl", result_ttl),
            cpu,
            _memory(title, cpu, memory),
            _limit(title, limit, concurrency),
            limit_key,
            named(title, schedule),
            on_failure.name if isinstance(on_failure, Task) else on_failure,
            sensitive,
            needs_database,
        )
        if limit_key is not None and limit_key not in declared.arguments.signature.parameters:
            raise TaskError(f"task {title}: limit_key is {limit_key}, which is no argument of it")
        if cpu and declared.resources:
            raise TaskError(
                f"task {title}: cpu=True runs in a process of its own, which has no resources of the daemon: open them there"
            )
        if cpu and declared.is_async:
            raise TaskError(f"task {title}: cpu=True is for a plain def, which runs in a process of its own")
        known = registry.get(title)
        if known is not None and handler.place(known.fn) != handler.place(fn):
            two = " and ".join(".".join(handler.place(each)) for each in (known.fn, fn))
            raise TaskError(f"two tasks are named {title}: {two}")
        registry[title] = declared
        return declared

    return register if fn is None else register(fn)


def _duration(task_name: str, option: str, value: Duration | None) -> float | None:
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise TaskError(f"task {task_name}: {option} {error}") from error


def _memory(task_name: str, cpu: bool, value: str | int | None) -> int | None:
    if value is None:
        return None
    if not cpu:
        raise TaskError(f"task {task_name}: memory limits a process, which only a cpu=True task has")
    try:
        size = parse_size(value)
    except ValueError as error:
        raise TaskError(f"task {task_name}: memory {error}") from error
    if size < 1_000_000:
        raise TaskError(f"task {task_name}: memory is {value}, allowed is 1M and more")
    return size


def _limit(task_name: str, rate: str | float | None, concurrency: int | None) -> Limit:
    if concurrency is not None:
        bounds.check_whole(f"task {task_name}: concurrency", concurrency, bounds.COUNT)
    try:
        return Limit(None if rate is None else parse_rate(rate), concurrency)
    except ValueError as error:
        raise TaskError(f"task {task_name}: limit {error}") from error


def load_modules(modules: Collection[str], app_dir: Path | None = None) -> dict[str, Task[..., Any]]:
    """Import the modules that declare tasks, with `app_dir` first on the import path; returns the registry.

    Raises TaskError, one line, when a module is missing, fails to import or is no module.
    """
    if app_dir is not None and str(app_dir) not in sys.path:
        sys.path.insert(0, str(app_dir))
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not (module + ".").startswith(error.name + "."):
                raise TaskError(f"TASKS: {module} needs the module {error.name}, which is not installed") from error
            raise TaskError(
                f"TASKS: no module {module} on the import path (APP_DIR is {app_dir or 'not set'})"
            ) from error
        except TaskError:
            raise
        except (Exception, SystemExit) as error:  # a user's module may raise anything
            first = f"{type(error).__name__}: {error}".splitlines()[0]
            raise TaskError(f"TASKS: importing {module} failed: {first}") from error
    if not registry:
        raise TaskError(f"TASKS: {', '.join(modules)} declares no task: decorate a function with @task")
    check(registry)
    return registry
