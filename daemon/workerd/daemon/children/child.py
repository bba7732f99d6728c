"""The child's side: `python -m workerd.daemon.children.child DESCRIPTOR PARENT` runs one job after another."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import decimal
import faulthandler
import inspect
import os
import resource
import signal
import sys
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerd import codec, trace
from workerd.codec import storable
from workerd.daemon import django_connections, forks, own_log, tracing
from workerd.daemon.children.told import Channel, ChildHost, Forward
from workerd.daemon.endings import describe, may_be_retried, task_input
from workerd.daemon.printed import LogLines
from workerd.errors import PayloadError, TaskError
from workerd.job import Job
from workerd.outcomes import BadDelay, Discard, RetryAfter, Snooze, Unfit, decision
from workerd.tasks import load_modules

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.tasks import Task

PR_SET_PDEATHSIG = 1  # prctl(2)
OOM_SCORE = 500  # of 1000: where memory runs out, the kernel kills a child before the daemon and the database
CHILD_DELAY = 0.5  # seconds that spans of a handler wait here: a child may be killed at any time
SIGNALS = (signal.SIGTERM, signal.SIGINT)  # sent to all of a service; what a handler starts gets them as ever
PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Serve until the daemon closes the pipe."""
    _bind_to(parent=int(sys.argv[2]))
    channel = Channel(int(sys.argv[1]))
    hello = channel.receive()
    if hello is None:
        return
    forks.become_ordinary_after(SIGNALS)
    faulthandler.enable()  # a crash tells where, and the daemon keeps it with the job
    own_log.install([Forward(channel)], hello["level"])
    sys.stdout, sys.stderr = LogLines("stdout"), LogLines("stderr")
    sys.path[:] = hello["path"]
    try:
        tasks = load_modules(hello["modules"], Path(hello["app_dir"]))
    except TaskError as error:
        channel.send(kind="broken", answer=True, text=storable(str(error)))
        return
    tracing.start(hello["node"], delay=CHILD_DELAY)
    channel.send(kind="ready", answer=True, memory=_memory()[1])
    host = ChildHost(channel)
    while (request := channel.receive()) is not None:
        answer = _answer(tasks.get(request["task"]), request, host)
        sys.stdout.flush()
        sys.stderr.flush()
        channel.send(**answer, answer=True, memory=_memory()[1])


def _bind_to(parent: int) -> None:
    """Die when the daemon dies; be the first to go when memory runs out; leave it to the daemon when to end."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we said so
        sys.exit(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    for number in SIGNALS:
        signal.signal(number, lambda _number, _frame: None)


def _answer(task: Task[..., Any] | None, request: dict[str, Any], host: ChildHost) -> dict[str, Any]:
    if task is None:
        return {"kind": "discard", "text": f"a fresh process that imports TASKS knows no task {request['task']}"}
    return copy_context().run(_end_of, task, request, host)  # of its own: the next job finds nothing in it


def _end_of(task: Task[..., Any], request: dict[str, Any], host: ChildHost) -> dict[str, Any]:
    decimal.setcontext(decimal.getcontext().copy())  # an object, which handlers change in place
    carried = trace.read(request["trace"])
    trace.passed_on.set(carried)
    try:
        with tracing.within(carried), django_connections.around():
            result = _call(task, request, host)
        return {"kind": "returned", "text": _result(task, result)}
    except BaseException as error:  # noqa: BLE001 - a handler may raise anything, and each of it is an outcome
        return _told(task, error)


def _result(task: Task[..., Any], result: object) -> str:
    try:
        return codec.dumps(result, f"the result of {task.name}")
    except PayloadError as error:
        raise Unfit(str(error)) from None


def _told(task: Task[..., Any], error: BaseException) -> dict[str, Any]:
    """What the daemon is told of it: decided here, where the class is known."""
    try:
        decided = decision(error)
    except BadDelay as wrong:
        return {"kind": "raised", "text": storable(describe(error, f" ({wrong})")), "again": True}
    match decided:
        case Snooze() | RetryAfter():
            kind = "snooze" if isinstance(decided, Snooze) else "retry"
            return {"kind": kind, "text": storable(str(decided)), "delay": decided.delay}
        case Discard() | Unfit():
            return {"kind": "discard", "text": storable(str(decided))}
    return {"kind": "raised", "text": storable(describe(error)), "again": may_be_retried(task, error)}


def _call(task: Task[..., Any], request: dict[str, Any], host: ChildHost) -> Any:
    payload, arguments = task_input(task, request["payload"])
    if task.wants_job:
        job = Job(
            request["id"],
            task.name,
            request["queue"],
            request["attempt"],
            request["failures"],
            request["max_retries"],
            request["key"],
            payload,
            host,
        )
        job.parents = dict(request["parents"])
        arguments = {**arguments, "job": job}
    handler = partial(_returned, partial(task.fn, **arguments))
    if task.memory is None:
        return forks.contained(handler)
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = _memory()[0] + task.memory
    resource.setrlimit(resource.RLIMIT_AS, (limit if before[1] < 0 else min(limit, before[1]), before[1]))
    try:
        return forks.contained(handler)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _returned(handler: Callable[[], Any]) -> Any:
    result = handler()
    return asyncio.run(result) if inspect.iscoroutine(result) else result  # a wrapper returned what it wraps


def _memory() -> tuple[int, int]:
    """Bytes: address space, resident."""
    size, resident, *_ = Path("/proc/self/statm").read_text().split()
    return int(size) * PAGE, int(resident) * PAGE


if __name__ == "__main__":
    main()
