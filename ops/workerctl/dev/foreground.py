"""The daemon of `workerctl dev`: one process after the other, each with the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import termios
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workerd.daemon import pidfile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.settings import Settings

HOOK = "PYTHONBREAKPOINT"  # what `breakpoint()` calls, see sys.breakpointhook


@dataclass(frozen=True)
class Spare:
    """A process that waits; `tell` is the pipe that it waits at."""

    process: asyncio.subprocess.Process
    tell: int


class Foreground:
    """A `workerd` in our process group, so that its debugger can read what is typed; the next one waits beside it."""

    def __init__(self) -> None:
        self._environment = {HOOK: "workerd.daemon.debugger.stop", **os.environ}
        self._terminal = termios.tcgetattr(sys.stdin) if sys.stdin is not None and sys.stdin.isatty() else None
        self._process: asyncio.subprocess.Process | None = None
        self._spare: Spare | None = None

    async def start(self, flags: Sequence[str]) -> None:
        """Let the next one begin."""
        spare = self._spare or await self._made()
        with os.fdopen(spare.tell, "w") as tell, contextlib.suppress(BrokenPipeError):
            tell.write(json.dumps([*flags]) + "\n")
        self._process = spare.process
        self._spare = await self._made()

    async def discard(self) -> None:
        """End the one that waits: what it has imported is not the code of now, or none is to come."""
        if self._spare is not None:
            os.close(self._spare.tell)
            with contextlib.suppress(ProcessLookupError):
                self._spare.process.kill()
            await self._spare.process.wait()
            self._spare = None

    async def wait(self) -> int:
        """Its exit code, when it has ended; the terminal is then as it was, whatever a debugger has made of it."""
        assert self._process is not None
        code = await self._process.wait()
        if self._terminal is not None:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._terminal)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self, settings: Settings) -> None:
        """End it whatever it does: its jobs are rescued by the next one."""
        pid = pidfile.owner(settings.pid_file)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        self.signal(signal.SIGKILL)

    async def _made(self) -> Spare:
        waits, tell = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited, until it knows what to do with Ctrl-C
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "workerctl.dev.spare", str(waits), env=self._environment, pass_fds=[waits]
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            os.close(waits)
        return Spare(process, tell)
