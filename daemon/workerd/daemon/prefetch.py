"""How many jobs to claim: a pure decision."""

from __future__ import annotations

AHEAD = 0.1  # seconds of work that may wait in this process: enough to hide a claim's round trip, too little to hoard


def room(slots: int, busy: int, waiting: int, mean_run: float | None, limit: int) -> int:
    """Jobs to claim now, for `slots` of which `busy` run and `waiting` jobs claimed already; `mean_run` in seconds, None if unknown.

    Nothing while the waiting ones still last for half of the time: fewer, larger claims. Up to one batch is claimed while another runs.
    """
    ahead = 0 if mean_run is None else min(2 * limit, int(AHEAD / max(mean_run, 1e-6) * slots))
    idle = max(0, slots - busy)
    if waiting >= idle and waiting > ahead // 2:
        return 0
    return max(0, min(limit, idle + ahead - waiting))
