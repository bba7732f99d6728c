"""Runs modules as `python -m` does, in processes forked from this one, which has imported what most of them use.

A script: its own process knows neither this directory nor the package `tests`, as a new interpreter does not.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable

LARGEST = 131_072  # bytes of an order
PACKAGES = ("workerctl.commands", "workerctl.runtimes", "workerctl.doctor", "workerd.queue")
MODULES = (
    "workerctl.app",
    "workerd.config",
    "workerd.daemon.daemon",
    "workerd.problems",
    "workerd.settings_file",
    "workerd.tasks",
    "dotenv",
    "rich.table",
    "rich.tree",
)


class Order(TypedDict):
    """What to run and where; the files for its input and output, and for how it ended, come beside it."""

    module: str
    words: list[str]
    directory: str
    environment: dict[str, str]
    imports: list[str]  # what else is worth to be there for the next time


def serve(orders: socket.socket) -> None:
    """Start what is ordered until nobody can order any more; in a process that was forked for an order, obey it."""
    before = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGCHLD)}  # keepers just end
    while True:
        text, files, _, _ = socket.recv_fds(orders, LARGEST, 4)
        if not text:
            break
        order: Order = json.loads(text)
        bring(order["imports"])
        if os.fork() == 0:
            orders.close()
            signal.signal(signal.SIGCHLD, before[signal.SIGCHLD])
            keep(*files)
            signal.signal(signal.SIGINT, before[signal.SIGINT])
            obey(order, files[:3])
            break
        for each in files:
            os.close(each)


def keep(*files: int) -> None:
    """Return in a new process; this one stays to tell how that one ends."""
    *streams, told = files
    process = os.fork()
    if process == 0:
        os.close(told)
        return
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
        os.write(told, b"%d\n" % process)
        _, status = os.waitpid(process, 0)
        os.write(told, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def obey(order: Order, streams: list[int]) -> None:
    """Do here what a new interpreter does that gets these words."""
    become(order, streams)
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


def become(order: Order, streams: list[int]) -> None:
    """Have what a new interpreter would have there."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["-m", *order["words"]]
    sys.path[0] = order["directory"]


def load() -> None:
    """Import what is worth it, without a thread or a loop, which no fork survives."""
    for package in PACKAGES:
        for each in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(each.name)
    bring(MODULES)


def bring(modules: Iterable[str]) -> None:
    """Have these imported before the fork."""
    if not sys.modules.keys() >= set(modules):
        for module in modules:
            importlib.import_module(module)
        gc.freeze()  # nobody who was forked goes through all that once more at its exit


if __name__ == "__main__":
    load()
    serve(socket.socket(fileno=int(sys.argv[1])))
