"""What Django keeps for a thread, closed around each run as Django itself does around each request.

Nothing is imported: where the application has not set Django up, this costs a look into `sys.modules`.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ASGIREF = "asgiref.sync"  # to be looked for by whoever has an OnLoop: a call for each run would cost more than all the rest of it

log = logging.getLogger(__name__)


@contextmanager
def around() -> Iterator[None]:
    """Around a run in this thread: connections that are too old or broken are closed, a transaction that is left open is rolled back."""
    if (django := _django()) is not None:
        _guarded(django.close_old_connections)
        _guarded(django.reset_queries)
    try:
        yield
    finally:
        _close()


def _close() -> None:
    if (django := _django()) is None:
        return
    for connection in django.connections.all(initialized_only=True):
        if connection.in_atomic_block:  # its wrapper cannot be used again
            _guarded(connection.close)
            del django.connections[connection.alias]
    _guarded(django.close_old_connections)
    if (cache := sys.modules.get("django.core.cache")) is not None:
        _guarded(cache.close_caches)


class OnLoop:
    """The same for `async def` handlers: what they ask of Django is done in one thread of asgiref, for all of them.

    That thread does one thing after another: what is closed there comes after all that ended runs have asked for, and before what later
    ones will. So nothing is waited for. While another run goes on, which may be reading from the connection, only a broken one is closed.
    """

    def __init__(self) -> None:
        self._waits = False  # what is to be closed has not been looked at yet
        self._alone = False  # no run went on at a moment since then

    def look(self, running: Callable[[], bool]) -> None:
        """A run is about to begin, or has ended; `running`: whether others go on."""
        if _django() is None:
            return
        self._alone = self._alone or not running()
        if not self._waits:
            self._waits = True
            sys.modules[ASGIREF].SyncToAsync.single_thread_executor.submit(self._close)

    def _close(self) -> None:
        self._waits = False  # first: whoever sets `_alone` from now on has another look
        alone, self._alone = self._alone, False
        if alone:
            _close()
        elif (django := _django()) is not None:
            for connection in django.connections.all(initialized_only=True):
                if connection.errors_occurred and not connection.in_atomic_block:
                    _guarded(_close_if_broken, connection)


def _django() -> Any:
    """The module `django.db` where the application has set Django up."""
    django, conf = sys.modules.get("django.db"), sys.modules.get("django.conf")
    return django if django is not None and conf is not None and conf.settings.configured else None


def _close_if_broken(connection: Any) -> None:
    if connection.is_usable():
        connection.errors_occurred = False
    else:
        connection.close()


def _guarded(call: Any, *arguments: Any) -> None:
    try:
        call(*arguments)
    except Exception:
        log.warning("closing what Django keeps for a thread failed", exc_info=True)
