"""What has connections or threads of its own begins again in a forked child."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Restarts(Protocol):
    def after_fork(self) -> object:
        """Forget what the parent has, without touching it; returns that."""


_followed: WeakSet[Restarts] = WeakSet()
_parents: list[object] = []  # never to be collected: that would work on the sockets and the loop of the parent


def follow(each: Restarts) -> None:
    """Let it begin again in each forked child, as long as it lives."""
    _followed.add(each)


def _begin_again() -> None:
    _parents.extend([each.after_fork() for each in list(_followed)])


os.register_at_fork(after_in_child=_begin_again)
