"""The sources: the files of which a change means other code, or other settings."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from watchfiles import Change, PythonFilter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workerd.settings import Settings


@dataclass(frozen=True)
class Sources:
    """`folders` are watched with all below them, `file` is that of the settings, whether there is one or not; all are absolute."""

    folders: frozenset[Path]
    file: Path
    ignored: tuple[Path, ...]

    @classmethod
    def of(cls, settings: Settings, file: Path) -> Sources:
        """APP_DIR, the modules of TASKS wherever they lie, and the file of the settings."""
        folders = {settings.app_dir.resolve(), *_folders(settings)}
        outermost = {each for each in folders if not any(other in each.parents for other in folders)}
        written = tuple(each.resolve() for each in (settings.state_dir, settings.runtime_dir, settings.log_dir))
        return cls(frozenset(outermost), file.resolve(), written)

    @property
    def is_code(self) -> PythonFilter:
        """Whether a path is that of a Python file that counts: none of an environment's, of a cache, nor of what the daemon writes."""
        return PythonFilter(ignore_paths=self.ignored)

    def is_settings(self, _change: Change, path: str) -> bool:
        """Whether a path is that of the settings."""
        return Path(path) == self.file


def _folders(settings: Settings) -> Iterator[Path]:
    """Where the top-level packages of TASKS lie; a module without a package in APP_DIR is found there."""
    for name in {module.partition(".")[0] for module in settings.tasks}:
        spec = PathFinder.find_spec(name, [str(settings.app_dir), *sys.path]) or find_spec(name)
        for place in () if spec is None else spec.submodule_search_locations or ():
            yield Path(place).resolve()
