"""The channel between a daemon and the process that takes its place: small JSON messages, some with file descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_MESSAGE = 65536  # bytes
MAX_FDS = 64


class Channel:
    """One end of a pair of sockets that keep the bounds of messages. The other end is closed when its process has gone."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setblocking(False)

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Our end, and the one to be inherited."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    @classmethod
    def of(cls, fd: int) -> Channel:
        """The end that was inherited, or handed on, as this file descriptor."""
        end = socket.socket(fileno=fd)
        end.set_inheritable(False)
        return cls(end)

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Say something; nothing happens when nobody is there any more."""
        with contextlib.suppress(OSError):
            socket.send_fds(self._end, [orjson.dumps(message)], fds)

    async def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and its file descriptors; None when the other process has gone."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return self._read()
            except BlockingIOError:
                readable = loop.create_future()
                loop.add_reader(self._end, _settle, readable)
                try:
                    await readable
                finally:
                    loop.remove_reader(self._end)

    def receive_now(self, timeout: float) -> tuple[dict[str, Any], list[int]] | None:
        """The same without a loop, within `timeout` seconds. Raises TimeoutError."""
        self._end.settimeout(timeout)
        try:
            return self._read()
        finally:
            self._end.setblocking(False)

    def close(self) -> None:
        self._end.close()

    def _read(self) -> tuple[dict[str, Any], list[int]] | None:
        try:
            data, fds, _, _ = socket.recv_fds(self._end, MAX_MESSAGE, MAX_FDS)
        except (ConnectionError, ValueError):
            return None
        if not data:
            return None
        message: dict[str, Any] = orjson.loads(data)
        return message, fds


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
