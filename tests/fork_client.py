#!/usr/bin/env -S python -IS
"""`workerctl` in the shell of a test: the fork server, whose socket the shell has inherited, runs it with what we were given."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

SERVER = "FORK_SERVER"  # the number of the socket


def main() -> None:
    """Be to others the process that runs elsewhere: hand on signals, and end as it ends."""
    told, tells = os.pipe()
    environment = dict(os.environ)
    orders = socket.socket(fileno=int(environment.pop(SERVER)))
    order = {
        "module": Path(sys.argv[0]).name,
        "words": sys.argv[1:],
        "directory": str(Path.cwd()),
        "environment": environment,
        "imports": [],
    }
    socket.send_fds(orders, [json.dumps(order).encode()], [0, 1, 2, tells])
    os.close(tells)
    with os.fdopen(told) as lines:
        process = int(lines.readline())
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, lambda number, _: os.kill(process, number))
        code = int(lines.readline())
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
