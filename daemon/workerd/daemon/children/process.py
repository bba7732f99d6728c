"""A child as the daemon sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from workerd.daemon.children import wire
from workerd.daemon.children.death import cause
from workerd.daemon.children.output import Output
from workerd.daemon.endings import Reported

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# What the supervisor of the daemon gave to it alone.
NOT_INHERITED = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "MAINPID"}
)
LEAVE = 2.0  # seconds that a child may take to end by itself
LAST_MESSAGE = 0.2  # seconds to read what a child had sent before it died


class Child:
    """One process, from its start in `__init__` to its end, which is awaited as `ended` (its return code)."""

    def __init__(self, on_end: Callable[[Child], None]) -> None:
        """Start it, from the loop's thread: the kernel kills it when the thread that started it ends. OSError when that fails."""
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._socket, theirs = socket.socketpair()
        out, into = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workerd.daemon.children.child", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=into,
                stderr=into,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if name not in NOT_INHERITED},
            )
        except BaseException:
            self._socket.close()
            os.close(out)
            raise
        finally:
            theirs.close()
            os.close(into)
        self.pid = self._process.pid
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self.jobs = 0
        self.memory = 0  # bytes, when it was ready
        self.idle_since = 0.0  # monotonic
        self._output = Output(out, self.pid)
        self._writer: asyncio.StreamWriter | None = None
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._on_death)

    @property
    def alive(self) -> bool:
        return not self.ended.done()

    async def prepare(self, hello: dict[str, Any]) -> None:
        """Let it import the tasks. Raises Reported when it cannot."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
        answer = await self.ask(hello, _ignore)
        if answer["kind"] != "ready":
            raise Reported(answer["text"])
        self.memory = answer["memory"]

    async def ask(
        self, message: dict[str, Any], on_told: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> dict[str, Any]:
        """Its answer to a message; `on_told` gets what it says before. Raises Reported when it dies instead."""
        assert self._writer is not None
        self._output.last_words = ""
        if message["kind"] == "job":
            self._output.about = {"job": message["id"], "task": message["task"], "attempt": message["attempt"]}
        self._writer.write(wire.pack(message))
        try:
            while not (told := await wire.read(self._reader)).get("answer"):
                await on_told(told)
            return told
        except (EOFError, ConnectionError, ValueError) as error:
            raise Reported(await self._why(error)) from error

    def tell(self, message: dict[str, Any]) -> None:
        """Answer what it asks while its handler runs."""
        assert self._writer is not None
        self._writer.write(wire.pack(message))

    def kill(self) -> None:
        """At once, with all that it started."""
        if self.alive:
            self._kill_group()

    def end(self) -> None:
        """Let it end by itself: it does when its pipe is closed."""
        self._close()
        self._loop.call_later(LEAVE, self.kill)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _on_death(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._kill_group()  # the group has its number until its leader is waited for
        self.ended.set_result(self._process.wait())
        self._output.close()
        self._on_end(self)
        self._loop.call_later(LAST_MESSAGE, self._close)  # a program of its own may hold the other end

    def _close(self) -> None:
        if self._writer is None:
            self._socket.close()
        else:
            self._writer.close()

    async def _why(self, error: Exception) -> str:
        done, _ = await asyncio.wait([self.ended], timeout=LEAVE)
        if not done:
            self.kill()
            return f"its process closed or broke its connection to the daemon ({type(error).__name__})"
        return f"{cause(self.ended.result())}\n{self._output.last_words}".strip()


async def _ignore(_message: dict[str, Any]) -> None:
    pass
