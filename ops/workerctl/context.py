"""What every command needs: the settings from its flags, and a way to the database. Heavy modules are imported at first use."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from workerctl.runtimes.runtime import Runtime
    from workerd.config import Configuration, Settings
    from workerd.queue.client import Queue
    from workerd.queue.database import Connection

T = TypeVar("T")
RuntimeOption = Annotated[
    str | None, typer.Option("--runtime", help="local, systemd or docker; without it: where the daemon is found.")
]

_flags: dict[str, str] = {}
_file: Path | None = None
_runtime: str | None = None


def take_settings(words: list[str]) -> list[str]:
    """Take `--config` and the flag of every setting out of a command line, wherever they stand; returns the rest.

    Raises ConfigError when one lacks its value.
    """
    import argparse

    from workerd import config
    from workerd.errors import ConfigError

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            raise ConfigError(message)

    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    config.add_flags(parser)
    found, rest = parser.parse_known_args(words)
    global _file
    _file = found.config
    _flags.clear()
    _flags.update(config.flags_of(found))
    return rest


def set_flag(name: str, value: str) -> None:
    """Give a setting as if by its flag: for arguments such as the N of `start N`."""
    _flags[name] = value


def given(name: str) -> bool:
    """Whether a setting stands on the command line."""
    return name in _flags


def keep(flags: dict[str, str], file: Path | None) -> None:
    """Take these settings where the command line says nothing else."""
    global _file
    for name, value in flags.items():
        _flags.setdefault(name, value)
    _file = _file or file


def flags() -> list[str]:
    """The settings given on the command line, as flags for a `workerd` that inherits our environment, where its secrets then are."""
    from workerd import config

    return config.command_line(_flags, _file)


def settings_file() -> Path:
    """The file of the settings, whether there is one or not."""
    return _file or Path(".env")


def configuration() -> Configuration:
    """All settings. Raises ConfigError."""
    from workerd import config

    return config.load(_flags, _file)


def settings() -> Settings:
    """The values of all settings. Raises ConfigError."""
    return configuration().settings


def set_runtime(wanted: str | None) -> None:
    """`--runtime` before the command."""
    global _runtime
    _runtime = wanted


def runtime(wanted: str | None) -> Runtime:
    """What runs the daemon of the settings: as `--runtime` after or before the command says, else where it is found. Raises ConfigError."""
    from workerctl.runtimes.choose import choose

    return choose(settings(), flags(), wanted or _runtime)


@asynccontextmanager
async def queue(*, upgrade: bool = True, pool_size: int = 2) -> AsyncIterator[Queue]:
    """The queue of the settings; an embedded database is started when needed, and a new one gets its schema."""
    import asyncio

    from workerd.locate import locate
    from workerd.queue import migrate
    from workerd.queue.client import Queue

    where = await asyncio.to_thread(locate, settings())
    async with Queue.connect(where.url, pool_size=pool_size, pooled=where.pooled, name="workerctl worker") as opened:
        if upgrade:
            async with opened.connection() as connection:
                current = await migrate.current(connection)
            migrate.check(current)
            if not current:
                await _make_schema(where.direct)
        yield opened


async def _make_schema(direct: str) -> None:
    from workerd.queue import migrate
    from workerd.queue.database import connect

    connection = await connect(direct, "workerctl worker")
    try:
        await migrate.upgrade(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def session() -> AsyncIterator[tuple[Connection, str]]:
    """A session of its own, past any pooler, and its address: locks and settings are to last from one statement to the next."""
    import asyncio

    from workerd.locate import locate
    from workerd.queue.database import connect

    where = await asyncio.to_thread(locate, settings())
    connection = await connect(where.direct, "workerctl worker")
    try:
        yield connection, where.direct
    finally:
        await connection.close()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    import asyncio

    return asyncio.run(work)
