"""A finding: what was looked at, how it is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from workerd.error_text import message_of

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`check`: what was looked at. `found` and `advice` are one line each; what is fine needs no advice.

    A problem keeps jobs from being taken in, run or kept; a warning may lead to one.
    """

    check: str
    level: Level
    found: str = ""
    advice: str = ""

    @property
    def ok(self) -> bool:
        """Whether it does not make the command fail."""
        return self.level != "problem"

    def to_json(self) -> dict[str, Any]:
        said = "; ".join(filter(None, (self.found, self.advice)))
        return {
            "check": self.check,
            "ok": self.ok,
            "problem": None if self.ok else said,
            "level": self.level,
            "found": self.found or None,
            "advice": self.advice or None,
        }


def ok(check: str, found: str = "") -> Finding:
    return Finding(check, "ok", found)


def warning(check: str, found: str, advice: str) -> Finding:
    return Finding(check, "warning", found, advice)


def problem(check: str, found: str, advice: str) -> Finding:
    return Finding(check, "problem", found, advice)


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def failed(check: str, error: BaseException) -> Finding:
    """A check that did not come to an end."""
    return problem(check, f"it could not be examined: {type(error).__name__}: {error}", "report this, please")


def from_error(check: str, error: BaseException, advice: str) -> Finding:
    """The one line of an error of ours, in which advice may stand in brackets at the end; else it is `advice`."""
    text = message_of(error)
    if text.endswith(")") and " (" in text:
        found, _, told = text[:-1].rpartition(" (")
        return problem(check, found, told)
    return problem(check, text, advice)
