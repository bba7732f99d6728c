"""PostgreSQL's own program for backups, on a snapshot of ours."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from workerd.errors import BackupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

CHUNK = 1 << 20  # bytes


async def run(program: Path, dsn: str, snapshot: str, without: Iterable[str], out: Callable[[bytes], object]) -> None:
    """Write what pg_dump says of the schema `workerd`, `without` some tables, to `out`.

    Raises BackupError with its reason when it fails.
    """
    address, password = without_password(dsn)
    environment = {
        **os.environ,
        "PGAPPNAME": "workerctl worker backup",
        **({"PGPASSWORD": password} if password else {}),
    }
    process = await asyncio.create_subprocess_exec(
        program,
        "--schema=workerd",
        f"--snapshot={snapshot}",
        "--encoding=UTF8",
        "--no-owner",
        "--no-sync",
        *(f'--exclude-table=workerd."{table}"' for table in without),
        f"--dbname={address}",
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    complaint = asyncio.create_task(process.stderr.read())
    try:
        while chunk := await process.stdout.read(CHUNK):
            out(chunk)
        if await process.wait():
            lines = (await complaint).decode(errors="replace").strip().splitlines()
            raise BackupError(f"pg_dump failed: {lines[0] if lines else process.returncode}")
    finally:
        complaint.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()


def without_password(dsn: str) -> tuple[str, str]:
    """The address as it may stand on a command line, which every user of the host can read, and its password."""
    url = urlsplit(dsn)
    user, mark, hosts = url.netloc.rpartition("@")
    name, _, password = user.partition(":")
    query = dict(parse_qsl(url.query))
    password = unquote(password) or query.pop("password", "")
    if "," in hosts:  # of several servers the one that we are connected to
        query["target_session_attrs"] = "read-write"
    return f"{url.scheme}://{name}{mark}{hosts}{url.path}{'?' if query else ''}{urlencode(query)}", password
