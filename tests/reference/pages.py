"""All pages, and what they are made from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import httpx

from tests.reference import commands, http, metrics, settings, states
from tests.support import until
from workerctl.control import ask
from workerctl.manager.app import create_app
from workerd.queue import tokens

if TYPE_CHECKING:
    from tests.support import InProcess
    from workerd import Queue

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
FROM_CODE = {"settings": settings.text, "commands": commands.text, "states": states.text, "http": http.text}


async def of_metrics(node: InProcess, queue: Queue) -> str:
    """The page of metrics; `node` serves them, and knows the task `echo`."""
    await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=30)
    address = str((await asyncio.to_thread(ask, node.settings.socket_path, "status"))["metrics"])

    async def look() -> str | None:
        told = await asyncio.to_thread(_get, address)
        return told if all(family.samples for family in metrics.families(told)) else None

    return metrics.text(await until(look, "each metric has a sample"), await _of_manager(queue))


def _get(address: str) -> str:
    with urlopen(Request(address, headers={"Accept": OPENMETRICS}), timeout=10) as answer:  # noqa: S310 - ours
        return str(answer.read().decode())


async def _of_manager(queue: Queue) -> str:
    async with queue.connection() as connection:
        token = await tokens.create(connection, "reference", ["read"])
    transport = httpx.ASGITransport(create_app(queue))
    async with httpx.AsyncClient(transport=transport, base_url="http://manager") as client:
        answer = await client.get("/metrics", headers={"Authorization": f"Bearer {token}", "Accept": OPENMETRICS})
    return answer.raise_for_status().text
