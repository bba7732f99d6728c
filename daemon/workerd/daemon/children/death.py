"""How a child died, for the error of its job."""

from __future__ import annotations

import signal


def cause(code: int) -> str:
    """In words, of a return code as `subprocess` has it: a signal is negative."""
    if code >= 0:
        return f"its process exited with {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"its process was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
