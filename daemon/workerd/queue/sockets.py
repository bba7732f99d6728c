"""The sockets of our connections, where no loop can close them any more: in a forked child, and behind a loop that was closed."""

from __future__ import annotations

import contextlib
import os
import socket
from asyncio.trsock import TransportSocket
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterator

    from workerd.queue.database import Connection

_opened: WeakKeyDictionary[Connection, tuple[AbstractEventLoop, Any]] = WeakKeyDictionary()


def remember(connection: Connection) -> Connection:
    """Keep in mind which socket the connection has, and whose it is."""
    inside: Any = connection
    _opened[connection] = inside._loop, inside._transport.get_extra_info("socket")
    return connection


def end_orphans() -> None:
    """End the sessions whose loop was closed before them: the server would keep them until this process ends."""
    for connection, loop, descriptor in _open():
        if loop.is_closed():
            del _opened[connection]
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as same:
                same.shutdown(socket.SHUT_RDWR)


def _let_go() -> None:
    """In a forked child: the sessions are the parent's, and end with it alone.

    The descriptors lead nowhere from now on. They are not closed: the objects that hold these numbers will do that.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for _, _, descriptor in _open():
        with contextlib.suppress(OSError):
            os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)
    _opened.clear()


def _open() -> Iterator[tuple[Connection, AbstractEventLoop, int]]:
    for reference in _opened.keyrefs():  # other threads may open some meanwhile
        connection = reference()
        if connection is None or connection.is_closed():
            continue
        loop, held = _opened[connection]
        # a loop of uvloop closes its sockets, whose numbers may be others' by now; asyncio's sockets know when they are closed
        if (isinstance(held, TransportSocket) or not loop.is_closed()) and held.fileno() >= 0:
            yield connection, loop, held.fileno()


os.register_at_fork(after_in_child=_let_go)
