"""Messages to the supervisor that started us, by systemd's notification protocol."""

from __future__ import annotations

import os
import select
from time import CLOCK_MONOTONIC, clock_gettime_ns

import sdnotify

PATIENCE = 0.5  # seconds for which a message that must not be lost waits for a supervisor that is slow to read


class Supervisor:
    """Says what the daemon does, as sd_notify(3) has it; silent where nobody listens, and for ever after a hand-over."""

    def __init__(self, *, succeeds: bool = False) -> None:
        """`succeeds`: another process is in charge, and alone listened to, until we are ready."""
        self._in_charge = not succeeds
        self._notifier = sdnotify.SystemdNotifier()
        self._socket = self._notifier.socket
        if self._socket is not None:
            self._socket.setblocking(False)  # one that does not read its messages must not stop the loop
        self._said = ""
        usec = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_interval = (
            int(usec) / 2e6 if usec.isdigit() and ours else None
        )  # seconds between two signs of life

    def starting(self) -> None:
        self._tell("STATUS=starting")

    def ready(self, status: str) -> None:
        self._in_charge = True
        self._insist("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """What follows is a reload, until the next READY=1: ours when it failed, the one with the successor's PID when it went well."""
        self._insist("RELOADING=1", f"MONOTONIC_USEC={clock_gettime_ns(CLOCK_MONOTONIC) // 1000}")

    def hand_over(self, pid: int) -> None:
        """Another process is the daemon now: nothing that this one says later may count for it."""
        self._insist(f"MAINPID={pid}", "READY=1")
        self._socket = None

    def stopping(self) -> None:
        self._insist("STOPPING=1", "STATUS=draining")

    def extend(self, seconds: float) -> None:
        """Ask for this much time from now on before it counts us as hanging in our start, reload or stop."""
        self._tell(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def status(self, text: str) -> None:
        """Says it when it is news."""
        if text != self._said:
            self._said = text
            self._tell(f"STATUS={text}")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def _tell(self, *words: str) -> None:
        if self._socket is not None and self._in_charge:
            self._notifier.notify("\n".join(words))

    def _insist(self, *words: str) -> None:
        if self._socket is not None and self._in_charge:
            select.select([], [self._socket], [], PATIENCE)
            self._notifier.notify("\n".join(words))
