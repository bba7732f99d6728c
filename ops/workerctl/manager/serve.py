"""Serving the manager."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import uvicorn

from workerctl.manager.app import create_app
from workerd.errors import ConfigError
from workerd.queue import tokens

if TYPE_CHECKING:
    from workerd.queue.client import Queue

DRAIN = 10  # seconds for requests under way when it is told to stop


async def serve(queue: Queue, host: str, port: int) -> None:
    """Serve until told to stop. Raises ConfigError beyond loopback while there is no token."""
    async with queue.connection() as connection:
        guarded = any(not token.revoked for token in await tokens.every(connection))
    if not guarded and not _is_loopback(host):
        raise ConfigError(
            f"--host is {host}, which others can reach, and there is no token yet: `workerctl tokens create --scope operate NAME` first"
        )
    config = uvicorn.Config(
        create_app(queue), host=host, port=port, loop="uvloop", log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=DRAIN,
    )  # fmt: skip
    await uvicorn.Server(config).serve()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
