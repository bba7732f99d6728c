"""Which transport a daemon uses: with MANAGER_URL it works through a manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workerd.errors import ConfigError
from workerd.locate import locate

if TYPE_CHECKING:
    from workerd.config import Settings
    from workerd.daemon.transport.base import Transport
    from workerd.tasks import Task


def choose(settings: Settings, tasks: dict[str, Task[..., Any]]) -> Transport:
    """Starts the embedded database when it is to be used and does not run. Blocks. Raises ConfigError, EmbeddedError."""
    if settings.manager_url is None:
        from workerd.daemon.transport.postgres import PostgresTransport

        return PostgresTransport(settings, locate(settings), tasks)
    if not settings.api_token:
        raise ConfigError(
            "API_TOKEN is missing: a node that works through a manager (MANAGER_URL) needs one of "
            "`workerctl tokens create --scope work NAME`"
        )
    from workerd.remote.transport import HttpTransport

    return HttpTransport(settings, tasks)
