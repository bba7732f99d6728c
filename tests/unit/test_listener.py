"""The socket on which the manager listens."""

from __future__ import annotations

import socket

from workerctl.manager.listener import listen


def test_answers_are_sent_at_once_and_wait_for_no_acknowledgement() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
