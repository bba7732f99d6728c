"""Text of scans by the MinerU API: a file is uploaded to an address it gives, and its result asked for until it is there.

Protocol: https://mineru.net/apiManage/docs (file-urls/batch, extract-results/batch).
"""

from __future__ import annotations

import asyncio
import io
import os
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

from invoices.http import TIMEOUT, ServiceError, check, trust
from workerd import Discard

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

BASE = "https://mineru.net/api/v4"
POLL = 3.0  # seconds between two questions
LIMIT = 600.0  # seconds until a result is given up
MAX_TEXT = 100_000  # bytes of the unpacked text: the rules read it on the event loop


def configured() -> bool:
    return bool(os.environ.get("MINERU_API_TOKEN"))


async def read_scan(path: Path) -> str:
    """The text of a scanned PDF or picture. Raises RetryAfter, ServiceError, or Discard when the service cannot read it."""
    import httpx

    base = (os.environ.get("MINERU_API_BASE") or BASE).rstrip("/")
    headers = {"Authorization": f"Bearer {os.environ['MINERU_API_TOKEN']}"}
    try:
        async with (
            httpx.AsyncClient(timeout=TIMEOUT, verify=trust(), follow_redirects=True) as client,
            asyncio.timeout(LIMIT),
        ):
            batch = await _upload(client, base, headers, path)
            return _text(await _result(client, f"{base}/extract-results/batch/{batch}", headers))
    except httpx.InvalidURL as error:
        raise Discard(f"the address of MinerU, or one that it gave, is none: {error}") from error
    except httpx.HTTPError as error:
        raise ServiceError(f"MinerU does not answer: {type(error).__name__} {error}".strip()) from error
    except TimeoutError:
        raise ServiceError(f"MinerU had no result after {LIMIT:.0f} s") from None


async def _upload(client: httpx.AsyncClient, base: str, headers: dict[str, str], path: Path) -> str:
    asked = {"files": [{"name": path.name, "is_ocr": True}], "enable_table": True}
    data = _data(await client.post(f"{base}/file-urls/batch", json=asked, headers=headers))
    try:
        batch, address = str(data["batch_id"]), str(data["file_urls"][0])
    except (KeyError, IndexError, TypeError) as error:
        raise Discard("MinerU's answer has no upload address") from error
    check(await client.put(address, content=await asyncio.to_thread(path.read_bytes)), "MinerU's storage")
    return batch


async def _result(client: httpx.AsyncClient, address: str, headers: dict[str, str]) -> bytes:
    """The archive with the result, when it is there."""
    while True:
        data = _data(await client.get(address, headers=headers))
        try:
            state = data["extract_result"][0]
            if state["state"] == "done":
                packed = await client.get(str(state["full_zip_url"]))
                check(packed, "MinerU's storage")
                return packed.content
            if state["state"] == "failed":
                raise Discard(f"MinerU cannot read it: {state.get('err_msg') or 'no reason given'}")
        except (KeyError, IndexError, TypeError) as error:
            raise Discard("MinerU's answer has no result") from error
        await asyncio.sleep(POLL)


def _data(response: httpx.Response) -> dict[str, Any]:
    check(response, "MinerU")
    try:
        answer = response.json()
    except (ValueError, RecursionError) as error:
        raise Discard("MinerU's answer is not JSON") from error
    if not isinstance(answer, dict) or answer.get("code") != 0 or not isinstance(answer.get("data"), dict):
        raise Discard(f"MinerU refused: {' '.join(response.text.split())[:200]}")
    data: dict[str, Any] = answer["data"]
    return data


def _text(packed: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            name = next(n for n in archive.namelist() if n.endswith("full.md"))
            with archive.open(name) as file:
                return file.read(MAX_TEXT).decode(errors="replace")
    except (zipfile.BadZipFile, zlib.error, EOFError, StopIteration, RuntimeError, NotImplementedError) as error:
        raise Discard("MinerU's result is not the archive that was expected") from error
