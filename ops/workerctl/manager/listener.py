"""The socket on which the manager listens."""

from __future__ import annotations

import errno
import os
import socket

from workerd.errors import WorkerdError

OF_THE_PORT = (errno.EADDRINUSE, errno.EACCES)  # all other errors are the address's


def listen(host: str, port: int) -> socket.socket:
    """The listening socket. Raises WorkerdError when the port is taken or the address is none of this host."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        resolved = not isinstance(error, socket.gaierror)
        reason = os.strerror(error.errno or 0) if resolved else str(error.strerror)
        option = "--port, MANAGER_PORT" if error.errno in OF_THE_PORT else "--host, MANAGER_HOST"
        raise WorkerdError(
            f"the manager cannot listen on {place(host, port)}: {reason[:1].lower()}{reason[1:]} ({option})"
        ) from error
    # Connections inherit it: else the body of an answer waits 40 ms for the client's acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def place(host: str, port: int) -> str:
    """An address as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
