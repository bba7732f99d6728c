"""The server's process: is it there, start it, wait for its end."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerd.errors import EmbeddedError

if TYPE_CHECKING:
    from workerd.embedded.place import Place

START_LIMIT = 60.0  # seconds; recovery after a crash takes its time
STOP_LIMIT = 60.0
MAX_LOG = 10_000_000  # bytes at which the server's log is rotated, at a start


def answers(place: Place) -> bool:
    """Whether a server listens and is ready."""
    lines = _pid_lines(place)
    return lines[7:8] == ["ready"] and lines[0] == str(server_pid(place))


def server_pid(place: Place) -> int | None:
    """The PID of the server that listens on the socket, when it lives: after its death its children may keep the socket open."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(place.socket))
        except OSError:
            return None
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return pid if _lives(pid) else None


def _lives(pid: int) -> bool:
    """Whether there is such a process, and not only the record of its death that nobody has collected."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")  # the name before it may hold spaces and brackets


def start_server(place: Place, programs: Path) -> None:
    """Start the server and return when it is ready; it outlives us. Raises EmbeddedError."""
    _remove_stale_locks(place)
    try:
        if place.log.exists() and place.log.stat().st_size > MAX_LOG:
            place.log.rename(place.log.with_suffix(".log.1"))
        with place.log.open("ab") as log:
            begun = log.tell()
            server = subprocess.Popen(
                [programs / "postgres", "-D", place.data],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=place.home,
                **as_user(place),
            )
    except OSError as error:
        raise EmbeddedError(
            f"the embedded PostgreSQL in {place.home} cannot be started: {error.strerror}: {error.filename}"
        ) from error
    limit = time.monotonic() + START_LIMIT
    while not answers(place):
        if server.poll() is not None:
            raise EmbeddedError(
                f"the embedded PostgreSQL did not start: {_last_words(place, begun)} (its log is {place.log})"
            )
        if time.monotonic() > limit:
            raise EmbeddedError(
                f"the embedded PostgreSQL was not ready within {START_LIMIT:.0f} s (its log is {place.log})"
            )
        time.sleep(0.01)
    server.returncode = 0  # it outlives us on purpose: no warning about a child that still runs


def wait_until_gone(place: Place, pid: int) -> None:
    """Return when the server has ended. Raises EmbeddedError when it does not."""
    limit = time.monotonic() + STOP_LIMIT
    while _lives(pid):
        if time.monotonic() > limit:
            raise EmbeddedError(
                f"the embedded PostgreSQL (PID {pid}) did not stop within {STOP_LIMIT:.0f} s (its log is {place.log})"
            )
        time.sleep(0.02)


def as_user(place: Place) -> dict[str, Any]:
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    if place.user is None:
        return {"env": environment}
    return {
        "env": {**environment, "HOME": str(place.home)},
        "user": place.user.pw_uid,
        "group": place.user.pw_gid,
        "extra_groups": [],
    }


def _pid_lines(place: Place) -> list[str]:
    """The server's own PID file: PID first, on the eighth line its state."""
    try:
        return [line.strip() for line in (place.data / "postmaster.pid").read_text().splitlines()]
    except (OSError, UnicodeDecodeError):
        return []


def _remove_stale_locks(place: Place) -> None:
    """The server refuses to start while the PID in its lock file exists: that may be another program's by now, or a zombie.

    A process that outlives a killed server may still write, so nothing is removed before the last of them has gone.
    """
    import psutil

    pid = (_pid_lines(place) or [""])[0]
    if not pid.isdigit() or (_lives(int(pid)) and psutil.Process(int(pid)).name() == "postgres"):
        return
    limit = time.monotonic() + START_LIMIT
    while _works_in(place.data):
        if time.monotonic() > limit:
            raise EmbeddedError(f"processes of a server that died still work in {place.data}: end them first")
        time.sleep(0.02)
    (place.data / "postmaster.pid").unlink(missing_ok=True)
    Path(f"{place.socket}.lock").unlink(missing_ok=True)


def _works_in(data: Path) -> bool:
    """Whether any process has this working directory, as every process of a server has."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == data:
                return True
    return False


def _last_words(place: Place, begun: int) -> str:
    """What the server said since: its last two messages, since the reason often stands before the FATAL one."""
    with place.log.open("rb") as log:
        log.seek(begun)
        said = log.read().decode(errors="replace")
    messages = re.findall(r"(?:LOG|WARNING|ERROR|FATAL|PANIC): +(.*)", said) or said.strip().splitlines()
    return "; ".join(messages[-2:]) or "it said nothing"
