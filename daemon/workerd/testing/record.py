"""What a handler that is tested has said to its job."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Record:
    """`progress` holds (fraction, message), `lines` holds (level, message), `steps` the names of those done, each in its order."""

    progress: list[tuple[float, str | None]] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
