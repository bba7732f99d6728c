"""Unpacks a mail: parses it and stores its attachments; a large one in a process of its own (`python -m invoices.unpack PATH`)."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from invoices import child, store
from invoices.invoice import Unreadable

SMALL = 500_000  # bytes up to which parsing holds up the daemon for a few milliseconds only


@dataclass(frozen=True)
class Unpacked:
    """A mail whose attachments are stored at `paths`, each once."""

    message_id: str
    sender: str
    subject: str
    paths: list[str]


async def unpack_file(path: Path) -> Unpacked:
    """Unpack a mail from a file. Raises Unreadable."""
    if await asyncio.to_thread(_size, path) > SMALL:
        return Unpacked(**await child.run("invoices.unpack", path))
    return await asyncio.to_thread(_unpack_file_here, path)


async def unpack_text(raw: str) -> Unpacked:
    """Unpack a mail that was given inline. Raises Unreadable."""
    return await asyncio.to_thread(_unpack_here, raw.encode(errors="surrogateescape"))


def _size(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error
    from invoices.mail import MAX_MAIL

    if size > MAX_MAIL:
        raise Unreadable(f"{path.name} has {size:,} bytes, the limit is {MAX_MAIL:,}")
    return size


def _unpack_file_here(path: Path) -> Unpacked:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error
    return _unpack_here(raw)


def _unpack_here(raw: bytes) -> Unpacked:
    from invoices.mail import parse  # with the parser of the standard library: who enqueues needs none

    mail = parse(raw)
    paths = dict.fromkeys(str(store.save(mail, attachment)) for attachment in mail.attachments)
    return Unpacked(mail.message_id, mail.sender, mail.subject, list(paths))


def _work(path: str) -> dict[str, Any]:
    return asdict(_unpack_file_here(Path(path)))


if __name__ == "__main__":
    child.serve(_work)
