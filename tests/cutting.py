"""A relay before a server that cuts a connection at a chosen answer: it was done, and whoever asked hears of it, or does not."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from types import TracebackType

SOCKET = ".s.PGSQL.5432"
READY = b"Z\x00\x00\x00\x05"  # the server has done what it was asked, and committed it where no transaction is open


class Relay:
    """Reached at `dsn`. `cut(words, heard)`: end the connection at the answer to what contains these words, behind it when `heard`."""

    def __init__(self, server: str) -> None:
        self._server = Path(parse_qs(urlsplit(server).query)["host"][0], SOCKET)
        self._folder = Path(tempfile.mkdtemp(prefix="cut-", dir="/tmp"))  # a short path: it is that of a socket
        self.dsn = urlsplit(server)._replace(query=f"host={self._folder}").geturl()
        self._words: bytes | None = None
        self._heard = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Relay:
        self._listening = await asyncio.start_unix_server(self._pass, self._folder / SOCKET)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self._folder)

    def cut(self, words: bytes, answer: Literal["heard", "lost"]) -> None:
        """Once."""
        self._words, self._heard = words, answer == "heard"

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        answers, questions = await asyncio.open_unix_connection(self._server)
        cutting = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask(reader, questions, cutting))
                await self._answer(answers, writer, cutting)
                raise ConnectionError  # which ends the other direction
        except* OSError:
            pass
        finally:
            with contextlib.suppress(OSError):
                writer.close()
                questions.close()

    async def _ask(self, reader: asyncio.StreamReader, questions: asyncio.StreamWriter, cutting: asyncio.Event) -> None:
        while data := await reader.read(1 << 16):
            if self._words is not None and self._words in data:
                self._words = None
                cutting.set()
            questions.write(data)
        questions.close()

    async def _answer(
        self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter, cutting: asyncio.Event
    ) -> None:
        while data := await answers.read(1 << 16):
            ends = cutting.is_set() and READY in data
            if not cutting.is_set() or self._heard:
                writer.write(data)
                await writer.drain()
            if ends:
                return
