"""A small mailbox of invented companies, made by `make.py`."""

from __future__ import annotations

from pathlib import Path


def mailbox() -> list[Path]:
    """The sample mails, in the order of their names."""
    return sorted(Path(__file__).parent.glob("*.eml"))
