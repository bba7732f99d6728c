"""Messages between the daemon and a child: four bytes of length, then a JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import asyncio

LENGTH = 4  # bytes
MAX_MESSAGE = 64_000_000  # bytes; payloads, results and errors are far below


def pack(message: dict[str, Any]) -> bytes:
    data = orjson.dumps(message)
    return len(data).to_bytes(LENGTH) + data


def unpack(data: bytes) -> dict[str, Any]:
    """Raises ValueError when it is no message."""
    message = orjson.loads(data)
    if not isinstance(message, dict) or "kind" not in message:
        raise ValueError("not a message")
    return message


async def read(stream: asyncio.StreamReader) -> dict[str, Any]:
    """The next message. Raises EOFError at the end, ValueError when it is no message."""
    length = int.from_bytes(await stream.readexactly(LENGTH))
    if length > MAX_MESSAGE:
        raise ValueError(f"a message of {length} bytes")
    return unpack(await stream.readexactly(length))
