"""What the jobs of the benchmark do: nothing, so that all that is measured is the queue."""

from __future__ import annotations

from workerd import task


@task(result_ttl=0)
async def noop() -> None:
    """Leaves no row."""


@task
async def kept() -> None:
    """Leaves its row in the history, as tasks do unless they say otherwise."""
