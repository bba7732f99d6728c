"""The cluster: made, started, found and stopped."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from workerd.embedded import binaries
from workerd.embedded.place import Place, locate, prepare, usable
from workerd.embedded.server import answers, as_user, server_pid, start_server, wait_until_gone
from workerd.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROLE = DATABASE = "workerd"

CONFIGURATION = """\
# Written by workerd at each start of the server; put your own settings into postgresql.conf, below the line that includes this file.
listen_addresses = ''
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = 64MB
autovacuum_naptime = 10s
jit = off
max_parallel_workers_per_gather = 0
wal_level = minimal
max_wal_senders = 0
max_wal_size = 512MB
log_min_messages = error
log_min_error_statement = panic
log_checkpoints = off
timezone = 'UTC'
log_timezone = 'UTC'
"""


def start(state_dir: Path) -> str:
    """The DSN of the running cluster of this state directory; makes and starts it when needed. Blocks for up to a minute.

    Safe to call from several processes at once. Raises EmbeddedError, one line.
    """
    place = locate(state_dir)
    if not answers(place):
        prepare(place)
        with _locked(place):
            if not answers(place):
                programs = usable(binaries.find(), place)
                _check_version(place, programs)
                if not place.data.exists():
                    _make(place, programs)
                _configure(place, place.data)
                start_server(place, programs)
    return _dsn(place)


def is_made(state_dir: Path) -> bool:
    """Whether this state directory has a cluster; the first start makes it."""
    return locate(state_dir).data.exists()


def is_running(state_dir: Path) -> bool:
    """Whether the cluster of this state directory answers."""
    return answers(locate(state_dir))


def stop_if_unused(state_dir: Path) -> bool:
    """Stop the cluster unless somebody is connected to it; whether it does not run now. Raises EmbeddedError when it does not stop."""
    import asyncio

    place = locate(state_dir)
    if not answers(place):
        return True
    with _locked(place):
        pid = server_pid(place)
        if pid is None:
            return True
        if asyncio.run(_others(_dsn(place))):
            return False
        os.kill(pid, signal.SIGINT)
        wait_until_gone(place, pid)
    return True


def _dsn(place: Place) -> str:
    return f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(place.sockets), safe='')}"


@contextmanager
def _locked(place: Place) -> Iterator[None]:
    fd = os.open(place.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _check_version(place: Place, programs: Path) -> None:
    try:
        made_by = (place.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return
    installed = binaries.major(programs)
    if made_by != str(installed):
        raise EmbeddedError(
            f"the cluster in {place.data} was made by PostgreSQL {made_by}, installed is {installed}: "
            "install that version, or dump the data with it, "
            "move the directory away and load the dump"
        )


def _make(place: Place, programs: Path) -> None:
    """initdb into a temporary name, so that there is a whole cluster or none."""
    new = place.home / "data.new"
    shutil.rmtree(new, ignore_errors=True)
    _tool(
        place,
        programs / "initdb",
        "-D",
        str(new),
        "-U",
        ROLE,
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-locale",
        "--no-instructions",
    )
    with (new / "postgresql.conf").open("a") as file:
        file.write("\ninclude 'workerd.conf'\n")
    _configure(place, new)
    _tool(place, programs / "postgres", "--single", "-D", str(new), "postgres", text=f"CREATE DATABASE {DATABASE}\n")
    new.rename(place.data)


def _configure(place: Place, data: Path) -> None:
    file = data / "workerd.conf"
    file.write_text(CONFIGURATION.format(sockets=str(place.sockets).replace("'", "''")))
    if place.user:
        os.chown(file, place.user.pw_uid, place.user.pw_gid)


def _tool(place: Place, *command: object, text: str = "") -> None:
    done = subprocess.run(
        [str(part) for part in command],
        input=text,
        capture_output=True,
        text=True,
        cwd=place.home,
        check=False,
        **as_user(place),
    )
    if done.returncode:
        shutil.rmtree(place.home / "data.new", ignore_errors=True)
        said = [
            line.strip()
            for line in (done.stderr or done.stdout).splitlines()
            if "rror" in line or "FATAL" in line or "No space" in line
        ]
        raise EmbeddedError(
            f"the embedded PostgreSQL cannot be made in {place.home}: {said[-1] if said else f'initdb exited with {done.returncode}'}"
        )


async def _others(dsn: str) -> int:
    """How many other clients are connected."""
    import asyncpg

    from workerd.queue.database import CONNECTION_ERRORS

    try:
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            count: int = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
        finally:
            await connection.close()
    except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
        raise EmbeddedError(f"the embedded PostgreSQL does not answer: {error}") from error
    return count
