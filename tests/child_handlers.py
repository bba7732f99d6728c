"""Tasks that tests enqueue, which run in processes of their own."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from workerd import Discard, Job, Retry, RetryAfter, Snooze, task

if TYPE_CHECKING:
    from collections.abc import Callable

_PROGRAM = sys.modules["__main__"].__spec__  # None where a test runner has made the process
if _PROGRAM is not None and _PROGRAM.name == "workerd.daemon.children.child" and os.environ.get("WORKERD_TEST_BROKEN"):
    os._exit(7)


@task(cpu=True, retry=0)
def in_child(value: Any = None, *, job: Job) -> dict[str, Any]:
    job.progress(0.5, "half")
    logging.getLogger("shop").warning("counting %s", value)
    print(f"printed {value}")
    os.write(2, f"written {value}\n".encode())
    return {"value": value, "pid": os.getpid(), "attempt": job.attempt, "group": os.getpgid(0)}


@task(cpu=True, retry=0, memory="150M")
def does(what: str, *, job: Job) -> Any:
    """One thing of many that a handler may do in its process."""
    return _DEEDS[what](job)


class Fleeting(Exception):
    """What is retried; the daemon never gets to see it."""


@task(cpu=True, retry=Retry(max=3, interval=0, on=Fleeting))
def choosy(*, job: Job) -> None:
    raise Fleeting("not now") if job.attempt == 1 else KeyError("never")


@task(cpu=True, timeout=1.0, retry=0)
def endless() -> None:
    """Waits for a program of its own."""
    subprocess.run(["sleep", "1000"], check=True)


@task(cpu=True, retry=0)
def endless_unless_cancelled() -> None:
    subprocess.run(["sleep", "1000"], check=True)


@task(cpu=True, retry=0)
def computing() -> None:
    """Code in C that never comes back to the interpreter."""
    sum(iter(int, 1))


@task(cpu=True, retry=0)
def sleeping(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def _raise(error: BaseException) -> NoReturn:
    raise error


def _hang_up(_job: Job) -> None:
    os.closerange(3, 256)
    time.sleep(60)


def _surroundings(_job: Job) -> dict[str, Any]:
    links = [name for name in Path("/proc/self/fd").iterdir() if name.is_symlink()]
    files = sorted(str(link.readlink()).partition(":")[0] for link in links)
    score = Path("/proc/self/oom_score_adj").read_text().strip()
    return {"files": files, "notify": os.environ.get("NOTIFY_SOCKET"), "oom": score, "session": os.getsid(0)}


_DEEDS: dict[str, Callable[[Job], Any]] = {
    "segfault": lambda _: ctypes.string_at(0),
    "exit": lambda _: os._exit(3),
    "leave": lambda _: sys.exit(4),
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "terminate": lambda _: os.kill(os.getpid(), signal.SIGTERM),
    "hang up": _hang_up,
    "hog": lambda _: len([bytearray(10_000_000) for _ in range(100)]),
    "raise": lambda _: _raise(LookupError("no such thing")),
    "snooze": lambda _: _raise(Snooze("1h", "later")),
    "retry": lambda _: _raise(RetryAfter("1h", "busy")),
    "discard": lambda _: _raise(Discard("never")),
    "object": lambda _: object(),
    "connection": lambda job: job.connection(),
    "surroundings": _surroundings,
}
