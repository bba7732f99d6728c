"""Serving the manager."""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from typing import TYPE_CHECKING

import uvicorn

from workerctl import render
from workerctl.manager.app import create_app
from workerctl.manager.listener import listen, place
from workerd.daemon.notify import Supervisor
from workerd.errors import ConfigError
from workerd.maintenance.census import Census
from workerd.maintenance.leader import Leader
from workerd.queue import tokens
from workerd.queue.rescue import MANAGER_SESSION

if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import socket

    from fastapi import FastAPI

    from workerctl.manager.stand_in import StandIn
    from workerd.config import Settings
    from workerd.queue.client import Queue

DRAIN = 10  # seconds for requests under way when it is told to stop
NOBODY = 0  # the id of no node: it is the manager who ends what no run ends


class Server(uvicorn.Server):
    """Tells its supervisor how it goes, and ends what it does besides requests first: nobody waits for what may come."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, besides: Sequence[asyncio.Task[None]]) -> None:
        super().__init__(config)
        self._state = app.state
        self._supervisor = Supervisor()
        self._besides = [*besides, asyncio.create_task(self._pulse(), name="pulse")]

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        url = f"http://{place(self.config.host, self.config.port)}"
        self._supervisor.ready(url)
        render.say(url)
        if sys.stdout.isatty():
            render.say(f"log in once at {url}{self._state.once.offer()}")

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        self._supervisor.stopping()
        await self._state.hub.close()
        await self._state.once.close()
        await self._state.reach.close()
        for each in self._besides:
            each.cancel()
        await asyncio.gather(super().shutdown(sockets), *self._besides, return_exceptions=True)

    async def _pulse(self) -> None:
        while self._supervisor.watchdog_interval is not None:
            self._supervisor.alive()
            await asyncio.sleep(self._supervisor.watchdog_interval)


async def serve(queue: Queue, direct: str, settings: Settings, stand_in: StandIn | None = None) -> None:
    """Serve until told to stop, and lead the fleet where no node does.

    Raises ConfigError beyond loopback while there is no token, WorkerdError when it cannot listen there.
    """
    host, port = settings.manager_host, settings.manager_port
    async with queue.connection() as connection:
        guarded = any(not token.revoked for token in await tokens.every(connection))
    if not guarded and not _is_loopback(host):
        raise ConfigError(
            f"--host is {host}, which others can reach, and there is no token yet: `workerctl tokens create --scope operate NAME` first"
        )
    listener = listen(host, port)
    app = create_app(queue, direct)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN,
    )
    leader = Leader(direct, settings, {}, MANAGER_SESSION.format(settings.node), Census(), lambda: NOBODY)
    besides = [asyncio.create_task(leader.run(), name="leader")]
    if stand_in is not None:
        besides.append(asyncio.create_task(stand_in.run(), name="stand-in"))
    await Server(config, app, besides).serve([listener])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
