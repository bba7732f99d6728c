"""The control socket: one JSON object a line each way. Works while the database does not."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson

from workerd.errors import ConfigError, WorkerdError

if TYPE_CHECKING:
    from pathlib import Path

MAX_REQUEST = 1 << 20  # bytes; a reload brings a whole environment

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

log = logging.getLogger(__name__)


class ControlServer:
    """Answers `{"verb": …}` with `{"ok": true, "data": …}` or `{"ok": false, "error": …}`; handlers find the asker's `uid` in the request.

    Where systemd made the runtime directory for a group to enter, its members may ask; else nobody but our user.
    """

    def __init__(self, path: Path, handlers: dict[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None

    async def start(self, *, replace: bool = False) -> None:
        """Listen. The caller holds the PID file, so a socket that answers belongs to somebody else (ConfigError).

        `replace`: it belongs to the process whose place we take; who connects meanwhile reaches the one or the other.
        """
        try:
            if not replace:
                self._clear()
            place = self._path.with_suffix(".new") if replace else self._path
            place.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            mask = os.umask(0o117 if self._is_for_group() else 0o177)
            try:
                listener.bind(str(place))
            finally:
                os.umask(mask)
            listener.listen(100)
            place.rename(self._path)
            self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_REQUEST)
        except OSError as error:
            raise ConfigError(
                f"the control socket {self._path} cannot be opened: {error} (set RUNTIME_DIR to another directory)"
            ) from error

    async def stop(self, *, replaced: bool = False) -> None:
        """Listen no more; `replaced`: the path is another process's."""
        if self._server is not None:
            self._server.close()
            if not replaced:
                self._path.unlink(missing_ok=True)

    def _is_for_group(self) -> bool:
        return "RUNTIME_DIRECTORY" in os.environ and bool(self._path.parent.stat().st_mode & stat.S_IXGRP)

    def _clear(self) -> None:
        """Remove a stale socket; leave anything else alone."""
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise OSError("something that is no socket is in its place")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self._path))
            except (ConnectionRefusedError, FileNotFoundError):
                self._path.unlink(missing_ok=True)
                return
        raise OSError("another process listens on it")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = _peer(writer.get_extra_info("socket"))
        try:
            while line := await reader.readline():
                writer.write(orjson.dumps(await self._answer(line, uid)) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError, asyncio.LimitOverrunError) as error:
            log.debug("control connection: %s", error)
        finally:
            writer.close()

    async def _answer(self, line: bytes, uid: int) -> dict[str, Any]:
        try:
            request = orjson.loads(line)
            handler = self._handlers[request["verb"]]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return {"ok": False, "error": f"the daemon understands {', '.join(sorted(self._handlers))}"}
        try:
            return {"ok": True, "data": await handler({**request, "uid": uid})}
        except WorkerdError as error:
            return {"ok": False, "error": str(error)}


def _peer(connection: socket.socket) -> int:
    """The user at the other end."""
    _pid, uid, _gid = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return int(uid)
