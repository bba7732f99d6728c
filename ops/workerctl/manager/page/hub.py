"""The hub: looks at each view once for all who follow it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from workerd.errors import WorkerdError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

INTERVAL = 0.5  # seconds between two looks
SHARE = 10  # a look may take one part in so many of the time
ALIVE = 15.0  # seconds without news after which a stream says that it is there

log = logging.getLogger(__name__)


class Stream:
    """One view while somebody follows it."""

    def __init__(self) -> None:
        self.news = asyncio.Condition()
        self.number = 0  # of the newest
        self.text = ""
        self.followers = 0
        self.task: asyncio.Task[None] | None = None


class Hub:
    """A view is named by its address, and by whether it shows what sensitive tasks carry."""

    def __init__(self, render: Callable[[str, bool], Awaitable[str]]) -> None:
        self._render = render
        self._streams: dict[tuple[str, bool], Stream] = {}
        self.closed = asyncio.Event()

    async def follow(self, view: str, sees: bool) -> AsyncIterator[str | None]:
        """What the view shows, whenever that has changed; None when nothing has for a while."""
        stream = self._join(view, sees)
        number = 0
        try:
            while not self.closed.is_set():
                try:
                    async with asyncio.timeout(ALIVE), stream.news:
                        while stream.number == number and not self.closed.is_set():
                            await stream.news.wait()
                        number, text = stream.number, stream.text
                except TimeoutError:
                    yield None
                else:
                    if not self.closed.is_set():
                        yield text
        finally:
            self._leave((view, sees), stream)

    async def close(self) -> None:
        """Let all streams end."""
        self.closed.set()
        for stream in list(self._streams.values()):
            async with stream.news:
                stream.news.notify_all()

    def _join(self, view: str, sees: bool) -> Stream:
        stream = self._streams.get((view, sees))
        if stream is None:
            stream = self._streams[view, sees] = Stream()
            stream.task = asyncio.create_task(self._look(stream, view, sees), name=f"view {view}")
        stream.followers += 1
        return stream

    def _leave(self, key: tuple[str, bool], stream: Stream) -> None:
        stream.followers -= 1
        if not stream.followers:
            self._streams.pop(key, None)
            if stream.task is not None:
                stream.task.cancel()

    async def _look(self, stream: Stream, view: str, sees: bool) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                text = await self._render(view, sees)
            except WorkerdError as error:  # the database is away, say: what was shown stays
                log.warning("the page %s: %s", view, error)
            else:
                if text != stream.text or not stream.number:
                    async with stream.news:
                        stream.text, stream.number = text, stream.number + 1
                        stream.news.notify_all()
            await asyncio.sleep(max(INTERVAL, SHARE * (loop.time() - began)))
