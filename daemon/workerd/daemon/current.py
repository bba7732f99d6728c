"""The attempt within which the code runs, for whatever it logs."""

from __future__ import annotations

from contextvars import ContextVar

Attempt = tuple[int, str, int]  # its job's id, its task and its number

# Whatever a handler awaits, starts or calls in a thread inherits it.
attempt: ContextVar[Attempt | None] = ContextVar("attempt", default=None)
