"""Whether errors are reported, and the beginning of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from workerd.daemon import own_log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workerd.settings import Settings
    from workerd.tasks import Task

log = logging.getLogger(__name__)


def start(settings: Settings, tasks: Mapping[str, Task[..., Any]]) -> None:
    """Report what is logged as an error from now on, where SENTRY_DSN says where to."""
    if settings.sentry_dsn is None:
        return
    try:
        from workerd.daemon.reports import Reports
    except ModuleNotFoundError as error:
        log.warning("no reports of errors, although SENTRY_DSN is set: pip install 'workerd[sentry]' (%s)", error)
        return
    own_log.add(Reports(settings, tasks))
