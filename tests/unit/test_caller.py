"""What a client of a manager says when no answer comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.manager_process import free_port
from workerd.errors import ManagerError, WriteUnknown
from workerd.remote.caller import Addresses, Caller
from workerd.remote.queue import RemoteQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ANSWERS = {"nothing": b"", "502": b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"}


@pytest.fixture(params=sorted(ANSWERS))
async def address(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Of a server that takes requests and answers with no word of a manager."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWERS[request.param])
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield "http://{}:{}".format(*server.sockets[0].getsockname())


async def test_an_enqueue_that_was_sent_and_not_answered_may_have_been_written(address: str) -> None:
    queue = RemoteQueue(Caller(Addresses(address), "token"))
    for enqueue in (queue.enqueue("t"), queue.enqueue_many("t", [{}, {}])):
        with pytest.raises(WriteUnknown, match="it is not known whether this was written"):
            await enqueue
    await queue.close()


async def test_a_question_that_was_not_answered_and_an_enqueue_that_was_not_sent_are_plain(address: str) -> None:
    asking = Caller(Addresses(address), "token")
    with pytest.raises(ManagerError):
        await asking.ask("GET", "/api/v1/jobs/1", None, dict)
    away = Caller(Addresses(f"http://127.0.0.1:{free_port()}"), "token")
    with pytest.raises(ManagerError, match="cannot be reached"):
        await RemoteQueue(away).enqueue("t")
    await asking.closed()
    await away.closed()
