"""The files as they lie in the project, also within the installed package: their only copies."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]


def text(name: str) -> str:
    """A file by its path in the project, `systemd/invoice-worker.service`."""
    packed = resources.files("workerctl") / "packed" / name
    return (packed if packed.is_file() else CHECKOUT / name).read_text(encoding="utf-8")
