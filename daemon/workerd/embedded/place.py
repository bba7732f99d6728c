"""Where a cluster lives and as whom its server runs.

PostgreSQL refuses to run as root. Started by root it runs as the user whose state directory it is; where that is root's own, as
`postgres` if there is such a user, else as `nobody`. Directories that this user cannot reach (a state directory or an environment
below /root) are then replaced by ones below /var/lib/workerd-embedded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from workerd.errors import EmbeddedError

MAX_SOCKET_PATH = 107  # bytes, from unix(7); PostgreSQL appends the name below
SOCKET_NAME = "/.s.PGSQL.5432"
FOR_ROOT = Path("/var/lib/workerd-embedded")


@dataclass(frozen=True)
class Place:
    """The directories of one cluster; `user` is None when the server runs as whoever starts it."""

    home: Path
    sockets: Path
    user: pwd.struct_passwd | None

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "postgres.log"

    @property
    def socket(self) -> Path:
        return Path(f"{self.sockets}{SOCKET_NAME}")


def locate(state_dir: Path) -> Place:
    """The place of the cluster of a state directory; makes nothing. Raises EmbeddedError when no socket path is short enough."""
    if state_dir.exists() and not state_dir.is_dir():
        raise EmbeddedError(f"the state directory {state_dir} is no directory: set STATE_DIR to one")
    user = _server_user(state_dir)
    mark = hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:12]
    home = state_dir.resolve() / "postgres"
    if user is not None and not _reachable(home.parent, user):
        home = FOR_ROOT / mark
    sockets = home / "run"
    if len(os.fsencode(f"{sockets}{SOCKET_NAME}")) > MAX_SOCKET_PATH:
        sockets = Path(os.environ.get("TMPDIR", "/tmp")) / f"workerd-{os.getuid()}-{mark}"  # noqa: S108 - made 0700 and its owner verified
    if len(os.fsencode(f"{sockets}{SOCKET_NAME}")) > MAX_SOCKET_PATH:
        raise EmbeddedError(
            f"the path {sockets} is too long for a unix socket (over {MAX_SOCKET_PATH} bytes): set STATE_DIR or TMPDIR to a shorter one"
        )
    return Place(home, sockets, user)


def prepare(place: Place) -> None:
    """Make the directories, for the server's user alone. Raises EmbeddedError when that fails or a directory is somebody else's."""
    owner = place.user.pw_uid if place.user else os.getuid()
    for folder in (place.home, place.sockets):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if place.user and folder.stat().st_uid == 0:
                os.chown(folder, place.user.pw_uid, place.user.pw_gid)
            made = folder.lstat()
        except OSError as error:
            raise EmbeddedError(
                f"the directory {folder} for the embedded PostgreSQL cannot be made: {error.strerror} "
                "(set STATE_DIR to a writable directory)"
            ) from error
        if made.st_uid != owner or stat.S_ISLNK(made.st_mode):
            raise EmbeddedError(
                f"the directory {folder} belongs to another user (uid {made.st_uid}): set STATE_DIR to one of your own"
            )
        if not os.access(folder, os.W_OK):
            raise EmbeddedError(f"the directory {folder} is not writable: set STATE_DIR to a writable directory")
        if stat.S_IMODE(made.st_mode) & 0o077:
            folder.chmod(0o700)


def usable(programs: Path, place: Place) -> Path:
    """The programs where the server's user can run them: a copy when they lie in a directory closed to it."""
    if place.user is None or _reachable(programs, place.user):
        return programs
    install = programs.parent
    version = f"{install.stat().st_mtime_ns:x}"
    copy = FOR_ROOT / f"programs-{version}"
    if not (copy / "complete").exists():
        partial = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(install, partial / install.name, symlinks=True)
        libraries = install.parent.with_name(
            f"{install.parent.name}.libs"
        )  # where the wheel keeps shared libraries, found by a relative path
        if libraries.is_dir():
            shutil.copytree(libraries, partial / ".." / libraries.name, symlinks=True, dirs_exist_ok=True)
        (partial / "complete").touch()
        partial.chmod(0o755)
        shutil.rmtree(copy, ignore_errors=True)
        partial.rename(copy)
    return copy / install.name / "bin"


def _server_user(state_dir: Path) -> pwd.struct_passwd | None:
    if os.getuid() != 0:
        return None
    if state_dir.exists() and (owner := state_dir.stat().st_uid) != 0:  # a service's: root asks the same server
        with contextlib.suppress(KeyError):
            return pwd.getpwuid(owner)
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise EmbeddedError(
        "PostgreSQL does not run as root, and this host has neither a user postgres nor nobody: "
        "run workerd as an ordinary user, or set DATABASE_URL"
    )


def _reachable(path: Path, user: pwd.struct_passwd) -> bool:
    """Whether that user can enter every directory down to `path`, going by owner and mode.

    What does not exist yet will be made reachable.
    """
    for folder in (path, *path.parents):
        try:
            found = folder.stat()
        except FileNotFoundError:
            continue
        bits = (
            stat.S_IXUSR
            if found.st_uid == user.pw_uid
            else stat.S_IXGRP
            if found.st_gid == user.pw_gid
            else stat.S_IXOTH
        )
        if not found.st_mode & bits:
            return False
    return True
