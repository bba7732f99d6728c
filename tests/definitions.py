"""Writes down what the migrations make: `make definitions`."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import asyncpg

from tests.support import ROOT
from workerd import embedded
from workerd.queue import definitions, migrate

FILE = ROOT / "daemon/workerd/queue" / definitions.FILE


async def made(dsn: str) -> str:
    """What they make of an empty database, as the file has it."""
    connection = await asyncpg.connect(dsn)
    try:
        await migrate.upgrade(connection)
        return definitions.written(await definitions.definitions(connection))
    finally:
        await connection.close()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="workerd-definitions-") as directory:
        state = Path(directory)
        state.chmod(0o755)
        FILE.write_text(asyncio.run(made(embedded.start(state))), encoding="utf-8")
        embedded.stop_if_unused(state)


if __name__ == "__main__":
    main()
