"""A session of development: a daemon that is started anew at each change, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import workerd
from workerctl import render
from workerctl.dev.foreground import Foreground
from workerctl.dev.setup import Setup
from workerctl.dev.watch import Watch
from workerd.errors import ConfigError

PATIENCE = 2.0  # seconds that a daemon may take to end before we say what may keep it
OURS = Path(workerd.__file__).parent  # what a waiting daemon has imported already
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INSISTS = 3  # Ctrl-C: the first drains, the second gives jobs back at once, the third kills


class Session:
    """Runs one daemon after the other."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._daemon = Foreground()
        self._watch = Watch()
        self._leave = asyncio.Event()
        self._interrupts = 0

    async def run(self) -> None:
        """Returns after Ctrl-C, or when somebody else has stopped the daemon. Raises WorkerdError when nothing can be watched."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            await self._watch.follow(self._setup.sources)
            while await self._one():
                self._reread()
                await self._watch.follow(self._setup.sources)
        finally:
            self._daemon.signal(signal.SIGTERM)
            await self._daemon.discard()
            await self._watch.close()
            for number in SIGNALS:  # whoever insists has been heard
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    async def _one(self) -> bool:
        """One daemon from its start to the change that ends it; False when there is to be no other."""
        await self._daemon.start(self._setup.flags)
        ended = asyncio.create_task(self._daemon.wait())
        await self._until_news(ended)
        if not ended.done():
            if not self._leave.is_set():
                await self._note_what_changed()
                self._daemon.signal(signal.SIGTERM)
            await self._end(ended)
        elif ended.result() and not self._leave.is_set():
            render.warn(f"the daemon has ended with {ended.result()}: it is started again when a source changes")
            await self._until_news()
            await self._note_what_changed()
        else:
            return False
        return not self._leave.is_set()

    async def _until_news(self, *others: asyncio.Task[Any]) -> None:
        """Returns when a source has changed, when it is to leave, or when one of the others is done."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._watch.changed, self._leave)]
        try:
            await asyncio.wait([*waits, *self._watch.tasks, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        self._watch.check()

    async def _end(self, ended: asyncio.Task[int]) -> None:
        await asyncio.wait([ended], timeout=PATIENCE)
        if not ended.done():
            render.warn(
                "the daemon has not ended yet: a job runs, or a debugger holds it (`c` lets it go on); "
                "Ctrl-C twice gives jobs back at once, a third one kills it"
            )
        await ended

    async def _note_what_changed(self) -> None:
        changed = self._watch.take()
        if any(path.is_relative_to(OURS) for path in changed):
            await self._daemon.discard()
        if changed:
            here = Path.cwd()
            name = changed[0].relative_to(here) if changed[0].is_relative_to(here) else changed[0]
            more = f" and {len(changed) - 1} more" if changed[1:] else ""
            render.warn(f"{name}{more} changed: the daemon is started anew")

    def _reread(self) -> None:
        try:
            self._setup = Setup.read()
        except ConfigError:  # the daemon reads them too, and says what is wrong
            return

    def _on_signal(self, number: int) -> None:
        self._interrupts += 1
        self._leave.set()
        if self._interrupts < INSISTS:
            self._daemon.signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        else:
            self._daemon.kill(self._setup.settings)
