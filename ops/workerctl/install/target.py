"""What `install` wants of each target: the files for this installation, what follows, and how they are removed."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workerd.errors import WorkerdError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workerd.config import Configuration

STOP_MARGIN = 30  # seconds beyond the drain: 5 to cancel, 10 for the last results, 15 for an embedded database


@dataclass(frozen=True)
class File:
    """One file to write; `shown` turns its text into one for people, without secrets, and `then` is the command that takes it in."""

    path: Path
    text: str
    mode: int = 0o644
    group: str | int | None = None
    shown: Callable[[str], str] = str
    then: tuple[str, ...] = ()

    def diff(self) -> str:
        """What writing it would change, for people; empty where nothing lies there, or the same."""
        there = self.path.read_text(encoding="utf-8") if self.path.exists() else self.text
        old, new = (self.shown(text).splitlines(keepends=True) for text in (there, self.text))
        differs = "".join(difflib.unified_diff(old, new, str(self.path), f"{self.path} (new)"))
        return differs or ("" if there == self.text else f"{self.path}: a secret differs\n")

    def write(self) -> None:
        """Write it whole, with its mode from the first moment, and run what takes it in."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.new")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(self.text)
        if self.group is not None:
            shutil.chown(partial, group=self.group)
        partial.chmod(self.mode)
        partial.rename(self.path)
        if self.then:
            run(*self.then)


class Target(ABC):
    """Something that runs, or looks after, the daemon of a configuration."""

    name: ClassVar[str]
    is_system: ClassVar[bool]  # whether it is the host's: its folders are fixed, and it takes root

    def __init__(self, configuration: Configuration, to: Path | None = None) -> None:
        """`to`: the folder for the files, instead of the usual one."""
        self.configuration = configuration
        self.settings = configuration.settings
        self.to = None if to is None else to.absolute()

    @property
    @abstractmethod
    def next_step(self) -> str:
        """The command that a user types then."""

    @abstractmethod
    def files(self) -> list[File]:
        """For this installation, in the order in which they are written."""

    @abstractmethod
    def remove(self) -> list[str]:
        """Take away all that was installed, and whatever runs of it; returns the data that is left for people to keep or delete."""

    def warnings(self) -> list[str]:
        """What will not work as things are."""
        return []


def closed_to_others(path: Path) -> Path | None:
    """The first folder on the way that others may not enter; on the way to where a link leads as well."""
    folders = (*reversed(path.parents), *reversed(path.resolve().parents))
    return next((each for each in folders if each.exists() and not each.stat().st_mode & 0o001), None)


def run(*command: str) -> str:
    """The output of a command. Raises WorkerdError with its last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise WorkerdError(f"there is no {command[0]} here") from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or [f"it ended with {done.returncode}"]
        raise WorkerdError(f"{' '.join(command)}: {words[-1]}")
    return done.stdout
