"""The files as they lie in the project, also within the installed package: their only copies."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

CHECKOUT = Path(__file__).parents[3]


def text(name: str) -> str:
    """A file by its path in the project, `systemd/invoice-worker.service`."""
    return _find(name).read_text(encoding="utf-8")


def names(folder: str) -> list[str]:
    """The files of a folder by their paths in it, those of the folders within too."""
    return sorted(_names(_find(folder)))


def _find(name: str) -> Traversable:
    packed = resources.files("workerctl") / "packed" / name
    return packed if packed.is_file() or packed.is_dir() else CHECKOUT / name


def _names(folder: Traversable) -> Iterator[str]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from (f"{each.name}/{name}" for name in _names(each))
        else:
            yield each.name
