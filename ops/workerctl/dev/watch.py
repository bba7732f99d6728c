"""The watch: says that a source has changed."""

from __future__ import annotations

import asyncio
from importlib.util import cache_from_source
from pathlib import Path
from typing import TYPE_CHECKING

from watchfiles import awatch

from workerd.errors import WorkerdError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from watchfiles.main import FileChange

    from workerctl.dev.sources import Sources

DEBOUNCE, STEP = 200, 20  # milliseconds: changes that follow each other within a step are one, at most so many of them


class Watch:
    """Notes changes from `follow` on until it follows others, or is closed."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._paths: set[Path] = set()
        self._sources: Sources | None = None
        self.tasks: list[asyncio.Task[None]] = []

    async def follow(self, sources: Sources) -> None:
        """Watch these from now on; does nothing when it does already."""
        if sources == self._sources:
            return
        await self.close()
        self._sources = sources
        code = awatch(*sources.folders, watch_filter=sources.is_code, debounce=DEBOUNCE, step=STEP)
        # the folder: editors put another file in the place of the one that they change
        settings = awatch(
            sources.file.parent, watch_filter=sources.is_settings, debounce=DEBOUNCE, step=STEP, recursive=False
        )
        self.tasks = [asyncio.create_task(self._note(changes)) for changes in (code, settings)]

    def take(self) -> list[Path]:
        """The paths that have changed since this was asked last."""
        self.changed.clear()
        taken = sorted(self._paths)
        self._paths.clear()
        return taken

    def check(self) -> None:
        """Raises WorkerdError when it can watch no longer: one of `tasks` is done."""
        try:
            for task in self.tasks:
                if task.done():
                    task.result()
        except OSError as error:
            why = "more files than fs.inotify.max_user_watches?"
            raise WorkerdError(f"the sources cannot be watched: {error} ({why})") from error

    async def close(self) -> None:
        """Stop watching."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _note(self, changes: AsyncIterator[set[FileChange]]) -> None:
        async for some in changes:
            for _, path in some:
                _forget_compiled(path)
                self._paths.add(Path(path))
            self.changed.set()


def _forget_compiled(path: str) -> None:
    """Python tells old compiled code by the source's second and length, which a quick small change leaves as they were."""
    if path.endswith(".py"):
        Path(cache_from_source(path)).unlink(missing_ok=True)
