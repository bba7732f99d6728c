"""The HTTP server of the daemon: in threads of its own, so it answers while the main loop stands still, and says so."""

from __future__ import annotations

import os
import selectors
import threading
from typing import TYPE_CHECKING

from workerd.daemon.metrics.http import Http
from workerd.daemon.threads import in_thread

if TYPE_CHECKING:
    import socket

    from workerd.daemon.metrics.answers import Answers

LAST_LIMIT = 2.0  # seconds that questions which have been asked may take when the server stops


class MetricsServer:
    """Serves on a socket that listens; without one it does nothing."""

    def __init__(self, listener: socket.socket | None, answers: Answers) -> None:
        self._http = None if listener is None else Http(listener, answers)
        self._thread: threading.Thread | None = None
        self._ringer = -1

    def start(self) -> None:
        if self._http is not None:
            bell, self._ringer = os.pipe()
            self._thread = threading.Thread(target=_serve, args=(self._http, bell), name="metrics", daemon=True)
            self._thread.start()

    async def stop(self) -> None:
        """Answer who has asked already, and close this process's side of the socket; does nothing the second time."""
        http, self._http = self._http, None
        if http is None:
            return
        if self._thread is not None:
            os.write(self._ringer, b"x")
            await in_thread("metrics", self._thread.join)
            os.close(self._ringer)
        http.server_close()
        await in_thread("metrics", lambda: http.answer_all(LAST_LIMIT))


def _serve(http: Http, bell: int) -> None:
    """Hand questions to threads until the bell rings."""
    with selectors.DefaultSelector() as selector:
        selector.register(bell, selectors.EVENT_READ)
        selector.register(http, selectors.EVENT_READ)
        while not any(key.fileobj == bell for key, _ in selector.select()):
            http.handle_request()
    os.close(bell)
