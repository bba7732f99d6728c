"""Messages to the supervisor that started us, by systemd's notification protocol."""

from __future__ import annotations

import os

import sdnotify


class Supervisor:
    """Says READY, STOPPING, STATUS and WATCHDOG; does nothing where nobody listens (see sd_notify(3))."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        if self._notifier.socket is not None:
            self._notifier.socket.setblocking(False)  # one that does not read its messages must not stop the loop
        self._said = ""
        usec = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_interval = (
            int(usec) / 2e6 if usec.isdigit() and ours else None
        )  # seconds between two signs of life

    def starting(self) -> None:
        self._notifier.notify("STATUS=starting")

    def ready(self, status: str) -> None:
        self._notifier.notify(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")

    def stopping(self) -> None:
        self._notifier.notify("STOPPING=1\nSTATUS=draining")

    def status(self, text: str) -> None:
        """Says it when it is news."""
        if text != self._said:
            self._said = text
            self._notifier.notify(f"STATUS={text}")

    def alive(self) -> None:
        self._notifier.notify("WATCHDOG=1")
