"""The databases of a benchmark: its own ones, on the server of the settings, else on an embedded one; gone afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from workerd import embedded
from workerd.embedded.place import locate as embedded_place
from workerd.errors import WorkerdError
from workerd.locate import locate, plain
from workerd.queue.database import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from workerd.settings import Settings

NAME = "workerctl bench"
STOP_TRIES = 100


@contextmanager
def directory() -> Iterator[Path]:
    """A temporary directory, open to the user as whom the embedded server runs when root starts it."""
    with tempfile.TemporaryDirectory(prefix="wd-bench-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@asynccontextmanager
async def database(url: str, label: str = "") -> AsyncIterator[str]:
    """The DSN of a new database on the server, gone afterwards. Raises WorkerdError when there is one of its name."""
    name = f"workerd_bench_{os.getpid()}{label}"
    ours = True
    try:
        await _execute(url, f"CREATE DATABASE {name}")
        yield database_at(url, name)
    except asyncpg.DuplicateDatabaseError as error:
        ours = False  # containers count PIDs each for itself: it may be in use
        raise WorkerdError(f"{error}: drop it, if no benchmark runs on another host") from error
    finally:
        if ours:
            await _execute(url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def database_at(url: str, name: str) -> str:
    """The address of another database of the same server."""
    scheme, _, rest = plain(url).partition("://")
    place, mark, query = rest.partition("?")
    return f"{scheme}://{place.partition('/')[0]}/{name}{mark}{query}"


@asynccontextmanager
async def server(settings: Settings, folder: Path) -> AsyncIterator[str]:
    """The URL of a server that runs. Raises DatabaseError."""
    if settings.database_url is not None:
        yield locate(settings).direct
        return
    try:
        # It blocks the loop on purpose: Ctrl-C then waits until there is a server that can be stopped.
        yield embedded.start(folder)
    finally:
        for _ in range(STOP_TRIES):  # our last connection is closed, but the server may not have noticed yet
            if await asyncio.to_thread(embedded.stop_if_unused, folder):
                break
            await asyncio.sleep(0.05)
        place = embedded_place(folder)
        for made in (place.home, place.sockets):  # outside of the folder, where that is closed to the server's user
            shutil.rmtree(made, ignore_errors=True)


async def _execute(url: str, sql: str) -> None:
    connection = await connect(url, NAME)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
