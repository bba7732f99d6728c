"""The lifecycle of a daemon, as the code of its tasks takes part in it."""

from __future__ import annotations

import inspect
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any

from workerd import handler
from workerd.daemon import guest
from workerd.error_text import line_of
from workerd.errors import StartupError
from workerd.lifecycle import shutdowns, startups
from workerd.redact import Redactor
from workerd.resources import used

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.resources import Resources
    from workerd.settings import Settings

STARTUP_LIMIT = 60.0  # seconds that one may take at the start
SHUTDOWN_LIMIT = 10.0  # seconds that all of them may take at the end
LEAST = 1.0  # seconds that one has then, though others have used them up

log = logging.getLogger(__name__)


class Lifecycle:
    """Calls what was registered by `on_startup` and `on_shutdown`."""

    def __init__(self, settings: Settings, resources: Resources) -> None:
        self._redact = Redactor(settings)
        self._resources = resources
        self._begun = False

    async def start(self) -> None:
        """Before anything is claimed. Raises StartupError, one line, at the first one that fails."""
        self._begun = True
        for fn in startups:
            error = await guest.trouble(self._call(fn), STARTUP_LIMIT)
            if error is not None:
                name = handler.place(fn)[1]
                log.debug("on_startup %s", name, exc_info=error)
                raise StartupError(f"on_startup {name} failed: {self._redact(line_of(error))}") from error

    async def stop(self) -> None:
        """When nothing runs any more; also after a start that failed. What goes wrong is logged."""
        end = monotonic() + SHUTDOWN_LIMIT
        for fn in reversed(shutdowns) if self._begun else ():
            error = await guest.trouble(self._call(fn), max(LEAST, end - monotonic()))
            if error is not None:
                log.error("on_shutdown %s failed: %s", handler.place(fn)[1], line_of(error), exc_info=error)

    async def _call(self, fn: Callable[..., Any]) -> None:
        await guest.call(fn, **await self._resources.get(used(inspect.signature(fn))))
