"""What tests that run side by side must not share: ports and links of this machine, each claimed by one process."""

from __future__ import annotations

import os
import socket

_PORTS = range(21000, 32000)  # below those that the kernel gives to whoever asks for any
_held: list[socket.socket] = []  # the claims of this process, which end with it


def claim(name: str) -> bool:
    """Whether this process may use what has this name; no other one may as long as it lives."""
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0workerd-test-{name}")
    except OSError:
        mark.close()
        return False
    _held.append(mark)
    return True


def free_ports(count: int) -> int:
    """The first of so many neighbouring ports at which nobody listens, and that no other test is given."""
    start = os.getpid() * 10 % len(_PORTS)
    found: list[int] = []
    for port in (*_PORTS[start:], *_PORTS[:start]):
        neighbour = found and port == found[-1] + 1
        found = [*(found if neighbour else ()), port] if claim(f"port-{port}") and _unused(port) else []
        if len(found) == count:
            return found[0]
    raise AssertionError("no free ports")


def _unused(port: int) -> bool:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
