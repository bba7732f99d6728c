"""A measured value, of one repetition."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`key` for scripts, `what` for people; the same in every repetition."""

    key: str
    what: str
    unit: str
    value: float
