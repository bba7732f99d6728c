"""The very end of a daemon: threads that handlers have left behind do not keep its process."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from time import sleep
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LINGER = 1.0  # seconds that threads may take to end by themselves: idle ones of a pool do

log = logging.getLogger(__name__)


def end(code: int, last: Callable[[], None]) -> None:
    """Do `last` when Python need not wait for threads any more; after a while end this process with this exit code all the same."""
    if not _left():
        last()
        return
    atexit.register(last)  # called when they have ended
    threading.Thread(target=_end, args=(code, last), name="parting", daemon=True).start()


def _end(code: int, last: Callable[[], None]) -> None:
    sleep(LINGER)
    log.warning("threads that handlers have started go on: they end with this process (%s)", ", ".join(_left()))
    logging.shutdown()
    last()
    os._exit(code)


def _left() -> list[str]:
    """The names of threads for which Python waits."""
    return [each.name for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
