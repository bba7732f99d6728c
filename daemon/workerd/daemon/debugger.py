"""The debugger: who stands at its prompt has stopped on purpose, for as long as a person thinks."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

# Where a thread stands while it is held: by pdb and all that is made of bdb, and by debugpy and the IDEs.
HELD = frozenset({("bdb.py", "trace_dispatch"), ("pdb.py", "interaction"), ("pydevd.py", "do_wait_suspend")})


def holds(thread: int | None) -> bool:
    """Whether the thread with this ident stands at a debugger's prompt."""
    frame = None if thread is None else sys._current_frames().get(thread)
    while frame is not None:
        if _place(frame) in HELD:
            return True
        frame = frame.f_back
    return False


def stops_all() -> bool:
    """Whether there is a debugger that stops all threads at its prompt, as those of IDEs do."""
    return "pydevd" in sys.modules


def stop() -> None:
    """What `breakpoint()` calls under `workerctl dev`: pdb, which leaves Ctrl-C to the daemon."""
    import pdb  # imported by whoever debugs alone

    pdb.Pdb(nosigint=True).set_trace(sys._getframe().f_back)


def _place(frame: FrameType) -> tuple[str, str]:
    return PurePath(frame.f_code.co_filename).name, frame.f_code.co_name
