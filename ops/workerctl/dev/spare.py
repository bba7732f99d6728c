"""The spare: a daemon that has imported what daemons need, and begins when it is told to, with the flags that it is told.

Its imports take most of the time that a start takes, and nothing of them is the code that changes.
"""

from __future__ import annotations

import json
import os
import signal
import sys


def main() -> None:
    """Wait for a line of flags; without one, or after Ctrl-C, the end."""
    interrupts: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    import uvloop  # noqa: F401 - this is what takes long

    import workerd.__main__
    import workerd.daemon.daemon
    import workerd.daemon.transport.postgres
    import workerd.embedded

    with os.fdopen(int(sys.argv[1])) as told:
        line = told.readline()
    if line and not interrupts:
        workerd.__main__.main(json.loads(line))


if __name__ == "__main__":
    main()
