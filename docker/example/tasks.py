"""The tasks of the example's application."""

from __future__ import annotations

from workerd import task


@task(queue="greetings")
async def greet(name: str) -> str:
    return f"Hello {name}"
