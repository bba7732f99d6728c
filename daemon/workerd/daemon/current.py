"""The attempt within which the code runs, for whatever it logs."""

from __future__ import annotations

from contextvars import ContextVar

# Its job's id, task and number; whatever a handler awaits, starts or calls in a thread inherits it.
attempt: ContextVar[tuple[int, str, int] | None] = ContextVar("attempt", default=None)
