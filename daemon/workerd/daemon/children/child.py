"""The child's side: `python -m workerd.daemon.children.child DESCRIPTOR PARENT` runs one job after another."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerd import codec, trace
from workerd.codec import storable
from workerd.daemon import django_connections, own_log, tracing
from workerd.daemon.children.told import Channel, ChildHost, Forward
from workerd.daemon.endings import describe
from workerd.daemon.printed import LogLines
from workerd.errors import PayloadError, TaskError
from workerd.job import Job
from workerd.outcomes import Discard, RetryAfter, Snooze
from workerd.tasks import load_modules

if TYPE_CHECKING:
    from workerd.tasks import Task

PR_SET_PDEATHSIG = 1  # prctl(2)
OOM_SCORE = 500  # of 1000: where memory runs out, the kernel kills a child before the daemon and the database
CHILD_DELAY = 0.5  # seconds that spans of a handler wait here: a child may be killed at any time
PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Serve until the daemon closes the pipe."""
    _bind_to(parent=int(sys.argv[2]))
    channel = Channel(int(sys.argv[1]))
    hello = channel.receive()
    if hello is None:
        return
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
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # sent to all of a service; a handler's own programs get them as ever
        signal.signal(number, lambda _number, _frame: None)


def _answer(task: Task[..., Any] | None, request: dict[str, Any], host: ChildHost) -> dict[str, Any]:
    if task is None:
        return {"kind": "discard", "text": f"a fresh process that imports TASKS knows no task {request['task']}"}
    carried = trace.read(request["trace"])
    trace.passed_on.set(carried)
    try:
        with tracing.within(carried), django_connections.around():
            result = _call(task, request, host)
        return {"kind": "returned", "text": codec.dumps(result, f"the result of {task.name}")}
    except (Snooze, RetryAfter) as error:
        return {
            "kind": "snooze" if isinstance(error, Snooze) else "retry",
            "text": storable(str(error)),
            "delay": error.delay,
        }
    except Discard as error:
        return {"kind": "discard", "text": storable(str(error))}
    except PayloadError as error:
        return {"kind": "payload", "text": storable(str(error))}
    except BaseException as error:  # noqa: BLE001 - a handler may raise anything, and each of it is an outcome
        again = task.retry.covers(error)  # decided here, where the class is known
        return {"kind": "raised", "text": storable(describe(error)), "again": again}


def _call(task: Task[..., Any], request: dict[str, Any], host: ChildHost) -> Any:
    payload = codec.loads(request["payload"])
    arguments = task.arguments.restored(payload)
    if task.wants_job:
        job = Job(
            request["id"], task.name, request["queue"], request["attempt"], request["failures"], request["max_retries"],
            request["key"], payload, host,
        )  # fmt: skip
        job.parents = dict(request["parents"])
        arguments = {**arguments, "job": job}
    if task.memory is None:
        return task.fn(**arguments)
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = _memory()[0] + task.memory
    resource.setrlimit(resource.RLIMIT_AS, (limit if before[1] < 0 else min(limit, before[1]), before[1]))
    try:
        return task.fn(**arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _memory() -> tuple[int, int]:
    """Bytes: address space, resident."""
    size, resident, *_ = Path("/proc/self/statm").read_text().split()
    return int(size) * PAGE, int(resident) * PAGE


if __name__ == "__main__":
    main()
