"""A limit: how many jobs may start in a second, and run at a time, in the whole fleet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """`rate`: starts in a second, `concurrency`: jobs at a time; None: no limit."""

    rate: float | None = None
    concurrency: int | None = None

    def __bool__(self) -> bool:
        return self.rate is not None or self.concurrency is not None


UNLIMITED = Limit()
