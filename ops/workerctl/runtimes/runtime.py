"""What the commands want of whatever runs the daemon."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from workerctl.runtimes.keeper import Keeper
    from workerd.config import Settings


@dataclass(frozen=True)
class Log:
    """A log from some moment on: the last records before it, oldest first, and the lines that come, for ever."""

    last: list[str]
    new: Iterator[str]
    missing: str = ""  # why there is none at all, where that is so


@dataclass(frozen=True)
class Launched:
    """What a daemon was started with: settings by flags, with secrets, and the file that `--config` named."""

    directory: Path  # where
    flags: dict[str, str]
    file: Path | None


class Runtime(ABC):
    """The daemon named `settings.name` in the hands of one runtime.

    Every verb raises WorkerdError, with what to do, when the runtime refuses; NotRunning where it needs a running daemon.
    """

    name: ClassVar[str]

    def __init__(self, settings: Settings, flags: list[str]) -> None:
        """`flags`: the settings of the command line, as a `workerd` takes them."""
        self.settings = settings
        self.flags = flags

    @abstractmethod
    def is_there(self) -> bool:
        """Whether a daemon of this name is in its hands, running or not."""

    @abstractmethod
    def who(self) -> str | None:
        """Who runs, for people (`PID 4312`, `3 containers`); None when nobody does."""

    def keeper(self) -> Keeper | None:
        """Another program that keeps the running daemon running, where there is one."""
        return None

    def launch(self) -> Launched | None:
        """What the running daemon was started with, where flags may have given it settings; None where they did not."""
        return None

    @abstractmethod
    def start(self, count: int | None) -> None:
        """Returns when it is ready; `count` as for `scale`, None where nobody gave a number."""

    @abstractmethod
    def stop(self, timeout: float | None, *, now: bool) -> None:
        """Drain within `timeout` seconds (None: as set), or at once, and return when it has gone."""

    @abstractmethod
    def reload(self) -> str:
        """Hand over to new code and settings; returns what came of it, for people."""

    @abstractmethod
    def scale(self, count: int) -> str:
        """Change the number of workers, or of whatever the runtime multiplies; returns what came of it, for people."""

    @abstractmethod
    def status(self) -> list[dict[str, Any]]:
        """What each running daemon tells about itself, as in `status --json`; empty when it is stopped."""

    @abstractmethod
    def health(self) -> dict[str, Any]:
        """What a probe asks, of all that run: `live` (their loops turn), `ready` (they can claim jobs), and the `reason` where not."""

    @abstractmethod
    def log(self, most: int, wanted: Callable[[str], bool], *, errors: bool) -> Log:
        """The last `most` records that are wanted and those to come. `errors`: warnings and errors only."""
