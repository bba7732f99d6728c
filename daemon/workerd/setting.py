"""One setting: what it is for, its other names, and which values it may have."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import ge, gt, le, lt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.kinds import Kind

_LIMITS = {
    "ge": (ge, "greater than or equal to"),
    "gt": (gt, "greater than"),
    "le": (le, "less than or equal to"),
    "lt": (lt, "less than"),
}


@dataclass(frozen=True)
class Setting:
    """`milliseconds`: those of the aliases that are in ms. `in_place`: a running daemon takes a new value in without a hand-over.

    `limits`: the least and the largest value, by the name of the comparison.
    `check`: raises ValueError for a value that has the kind and keeps the limits, and still is none.
    """

    kind: Kind
    default: Any  # or what computes it
    help: str
    aliases: tuple[str, ...]
    secret: bool
    in_place: bool
    milliseconds: tuple[str, ...]
    check: Callable[[Any], None] | None
    limits: dict[str, float]

    def value(self, given: Any) -> Any:
        """The value of a text, or of a value that code gives. Raises ValueError with what is allowed."""
        if given is None and self.default is None:
            return None
        value = self.kind.read(given)
        for name, limit in self.limits.items():
            holds, words = _LIMITS[name]
            if not holds(value, limit):
                raise ValueError(f"has to be {words} {limit}")
        if self.check is not None:
            self.check(value)
        return value


def setting(
    kind: Kind,
    default: Any,
    help: str,
    *aliases: str,
    secret: bool = False,
    in_place: bool = False,
    milliseconds: tuple[str, ...] = (),
    check: Callable[[Any], None] | None = None,
    **limits: float,
) -> Any:
    """A field of the settings."""
    about = Setting(kind, default, help, (*aliases, *milliseconds), secret, in_place, milliseconds, check, limits)
    if callable(default):
        return field(default_factory=default, metadata={"setting": about})
    return field(default=default, metadata={"setting": about})
