"""Processes that handlers fork, by `multiprocessing` for example: ordinary ones, which have no part in the daemon."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_held = threading.local()  # the signals that the forking thread had blocked before
forked = False  # whether this process is a fork of a daemon, or of a child of one

log = logging.getLogger(__name__)


def become_ordinary_after(signals: Iterable[signal.Signals], *then: Callable[[], object]) -> None:
    """From now on a fork of this process gets these signals as any program does, and calls `then`.

    The signals wait while a process forks: one that comes too early for the fork would go to the daemon, through the descriptor that
    wakes its loop.
    """
    handled = frozenset(signals)

    def before() -> None:
        _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, handled)

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)

    def in_child() -> None:
        global forked
        forked = True
        signal.set_wakeup_fd(-1)
        faulthandler.unregister(signal.SIGUSR1)
        for number in handled:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for each in then:
            with contextlib.suppress(Exception):
                each()
        signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def end_if_fork(error: BaseException | None = None) -> None:
    """End a fork that has come to the end of the handler that made it: the daemon goes on elsewhere, and only there."""
    if not forked:
        return
    if error is not None and not isinstance(error, SystemExit):
        log.error("a process that a handler has forked ends by an error", exc_info=error)
    code = error.code if isinstance(error, SystemExit) else error is not None
    os._exit(0 if code is None else code if isinstance(code, int) else 1)


def contained(handler: Callable[[], Any]) -> Any:
    """What the handler returns or raises, in the process that has called it alone."""
    try:
        result = handler()
    except BaseException as error:
        end_if_fork(error)
        raise
    end_if_fork()
    return result
