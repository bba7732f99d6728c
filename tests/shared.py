"""What a machine has once, for all processes and runs of the tests: kept below CACHE, behind locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    import pytest

CACHE = Path(os.environ.get("TESTBED_CACHE_DIR", "/tmp/testbed-cache"))
MADE = ".made"  # in a folder that is complete


def of_this_run(factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of this run."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time; the lock of one that is killed is open again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def kept(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, filled by whoever asks first; one that was left half made is made anew."""
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not (folder / MADE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / MADE).touch()
    return folder


@contextlib.contextmanager
def in_common(name: str, make: Callable[[], None], remove: Callable[[], None]) -> Iterator[None]:
    """Use what the first of its users makes and the last one removes; one that is killed uses it no longer."""
    mutex = CACHE / f"{name}.lock"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.users").open("w") as users:
        with locked(mutex):
            if _alone(users):
                make()
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with locked(mutex):
                fcntl.flock(users, fcntl.LOCK_UN)
                if _alone(users):
                    remove()


def _alone(users: IO[str]) -> bool:
    """Whether no other process holds it."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
