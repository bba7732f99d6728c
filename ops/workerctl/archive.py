"""The file of a backup: a zip with a manifest, the script of the queue's rows, and the attachments."""

from __future__ import annotations

import os
import re
import tempfile
import time
import zlib
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

from workerd.errors import BackupError

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST, QUEUE, ATTACHMENTS = "manifest.json", "queue.sql", "attachments"
STALE = 86400.0  # seconds after which what an interrupted backup left behind is removed

_BEGIN = b"PK"  # of any zip; a file that was cut off may have less
_NAME = re.compile(r"workerd-\d{8}T\d{6}Z\.zip")
_PARTIAL = ".workerd-*.partial"


def name_now() -> str:
    """A name that sorts by time."""
    return f"workerd-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip"


@contextmanager
def write(path: Path) -> Iterator[ZipFile]:
    """An archive that only its owner may read, and that has its name when it is complete and durable, not before."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_PARTIAL.partition("*")[0], suffix=".partial")
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with ZipFile(file, "w", ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
                yield archive
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def add_attachments(archive: ZipFile, folder: Path) -> int:
    """Add the files of a directory, and of those below it; returns how many. One that is removed meanwhile was cleaned up."""
    count = 0
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.name.startswith("."):  # links, and files being written
            continue
        with suppress(FileNotFoundError):
            archive.write(path, f"{ATTACHMENTS}/{path.relative_to(folder).as_posix()}")
            count += 1
    return count


def retain(folder: Path, count: int) -> list[Path]:
    """Remove all but the newest `count` backups of a directory, and what interrupted ones left; returns the backups that went."""
    found = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    old = found[:-count]
    for path in old:
        path.unlink(missing_ok=True)
    for path in folder.glob(_PARTIAL):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - STALE:
                path.unlink()
    return old


@contextmanager
def read(path: Path) -> Iterator[ZipFile]:
    """An archive of which every byte was checked. Raises BackupError when there is none, it is something else, or damaged."""
    if not path.is_file():
        raise BackupError(f"there is no file {path}")
    with path.open("rb") as file:
        begin = file.read(len(_BEGIN))
    if not _BEGIN.startswith(begin):
        raise BackupError(f"{path} is no backup of workerd")
    try:
        with ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged is None and {MANIFEST, QUEUE} <= set(archive.namelist()):
                yield archive
                return
    except (BadZipFile, zlib.error, EOFError):
        damaged = "its end"
    raise BackupError(
        f"{path} is damaged at {damaged}: take another backup" if damaged else f"{path} is no backup of workerd"
    )


def script(archive: ZipFile) -> BufferedReader:
    """The lines of the queue's rows."""
    return BufferedReader(archive.open(QUEUE), 1 << 20)  # type: ignore[arg-type]


def extract_attachments(archive: ZipFile, folder: Path) -> int:
    """Write the attachments into a directory, durably and with the times they had; returns how many."""
    count = 0
    for info in archive.infolist():
        place = PurePosixPath(info.filename)
        if place.parts[0] != ATTACHMENTS or info.is_dir():
            continue
        if ".." in place.parts:
            raise BackupError(f"the backup would write outside of {folder}: {info.filename}")
        path = folder.joinpath(*place.parts[1:])
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with partial.open("wb") as file:
            with archive.open(info) as stored:
                while chunk := stored.read(1 << 20):
                    file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        moment = time.mktime((*info.date_time, 0, 0, -1))
        os.utime(partial, (moment, moment))
        partial.replace(path)
        count += 1
    return count


def _sync(folder: Path) -> None:
    """Make a new name in a directory durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
