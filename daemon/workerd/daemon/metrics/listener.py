"""The socket on which metrics are asked for; a hand-over passes it on, so that no question meets a closed port."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from workerd.errors import WorkerdError

if TYPE_CHECKING:
    from workerd.config import Settings
    from workerd.daemon.handover.inheritance import Inheritance

BACKLOG = 64  # connections that wait while one process hands over to the next


def listen(settings: Settings, inheritance: Inheritance | None = None) -> socket.socket | None:
    """The listening socket of the settings, that of the predecessor where they have not changed; None where metrics are off.

    Raises WorkerdError when the port is taken or the address is none of this host.
    """
    place = place_of(settings)
    inherited = None if inheritance is None else inheritance.listener
    if inherited is not None and inheritance is not None:
        if inheritance.state["listener"] == place:
            return socket.socket(fileno=inherited)
        os.close(inherited)
    if place is None:
        return None
    host, port = settings.metrics_host, settings.metrics_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        opened = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise WorkerdError(
            f"metrics cannot be served on port {port} of {host}: {reason}"
            " (set METRICS_PORT to a free one, 0 picks one, and METRICS_HOST to an address of this host)"
        ) from error
    opened.setblocking(False)  # while two processes have it, the other one may be faster to accept
    return opened


def place_of(settings: Settings) -> list[str | int] | None:
    """Where the settings want metrics, as the hand-over compares it."""
    return [settings.metrics_host, settings.metrics_port] if settings.enable_metrics else None


def address(listener: socket.socket | None) -> str | None:
    """Where the metrics are, for people."""
    if listener is None:
        return None
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
