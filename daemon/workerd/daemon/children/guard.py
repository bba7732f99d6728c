"""The guard: a shell that outlives the daemon by a moment, to kill what its children have started."""

from __future__ import annotations

import contextlib
import logging
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# A killed daemon closes its end of the pipe: the loop ends, and the process groups of the last line are killed.
_SCRIPT = """
trap '' TERM INT HUP
while read -r line; do groups=$line; done
for group in $groups; do kill -s KILL -- "-$group"; done
"""

log = logging.getLogger(__name__)


class Guard:
    """Children are killed by the kernel when the daemon dies; programs that a handler started are not, but for this."""

    def __init__(self) -> None:
        self._shell: subprocess.Popen[bytes] | None = None

    def watch(self, groups: Iterable[int]) -> None:
        """From now on these process groups are to die with the daemon. Starts the guard when none runs."""
        line = f"{' '.join(map(str, groups))}\n".encode()
        try:
            if self._shell is None or self._shell.poll() is not None:
                self._shell = _start()
            assert self._shell.stdin is not None
            self._shell.stdin.write(line)
        except OSError as error:
            log.warning("no guard for what handlers start: %s", error)

    def close(self) -> None:
        """End it; it kills nothing."""
        shell, self._shell = self._shell, None
        if shell is not None and shell.stdin is not None:
            with contextlib.suppress(OSError):
                shell.stdin.write(b"\n")
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                shell.stdin.close()
                shell.wait(1)


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", _SCRIPT],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
