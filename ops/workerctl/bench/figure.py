"""A measured value, of one repetition."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`key` for scripts, `what` was measured and of `who` for people. A `compared` one is set in proportion to the peers'."""

    key: str
    what: str
    who: str
    unit: str
    value: float
    compared: bool = False
