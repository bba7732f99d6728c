"""An embedded PostgreSQL for those who have none: one cluster a state directory, reached over a unix socket.

The server is a process of its own session: it survives the daemon that started it, serves every daemon and `workerctl` of the same state
directory, and is stopped by `workerctl stop` when nothing else is connected.
"""

from __future__ import annotations

from workerd.embedded.cluster import is_made, is_running, start, stop_if_unused

__all__ = ["is_made", "is_running", "start", "stop_if_unused"]
