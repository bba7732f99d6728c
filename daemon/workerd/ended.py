"""The ends of attempts, as a daemon tells them to those who listen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from workerd import codec
from workerd.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable

    F = TypeVar("F", bound="Callable[[Ended], Any]")

How = Literal["succeeded", "retried", "failed", "cancelled", "snoozed", "returned"]

listeners: dict[Callable[[Ended], Any], frozenset[str]] = {}


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that has ended, in a daemon that has written so. `ran` and `delay` (until the next attempt) are seconds."""

    how: How
    job_id: int
    task: str
    queue: str
    attempt: int
    ran: float
    error: str | None
    delay: float | None
    text: str = field(repr=False)  # the payload, as JSON

    @property
    def payload(self) -> dict[str, Any]:
        """The arguments of the job, as JSON carries them."""
        payload: dict[str, Any] = codec.loads(self.text)
        return payload


def on_end(*how: How) -> Callable[[F], F]:
    """Register a listener, `async def` or `def` (in a thread), for attempts that end so: `@on_end("failed", "retried")`.

    It is told when the end is written, by the daemon that ran the attempt. What it raises is logged, a slow one holds up nobody.
    Raises TaskError for what is no end.
    """
    if not how or not set(how) <= set(get_args(How)):
        raise TaskError(
            f"on_end: {', '.join(map(repr, how)) or 'nothing'} given, allowed are {', '.join(get_args(How))}"
        )

    def register(fn: F) -> F:
        listeners[fn] = frozenset(how)
        return fn

    return register
