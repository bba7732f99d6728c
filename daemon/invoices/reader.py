"""Reads one document in a process of its own, with limits: hostile input can neither block nor bring down the daemon.

`python -m invoices.reader PATH` prints one JSON object: {"invoice": …, "text": …}, or {"error": "why"}.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from invoices.invoice import Invoice, Unreadable

MAX_FILE = 25_000_000  # bytes
MAX_MEMORY = 2 * 1024**3  # bytes of address space
MAX_CPU = 120  # seconds
LIMIT = 300  # seconds
MAX_TEXT = 20_000  # characters handed on
ENOUGH_TEXT = 40  # characters: a PDF with fewer is a scan
XML, PDF, PICTURE = "xml", "pdf", "picture"


@dataclass(frozen=True)
class Reading:
    """What was found, and the text for those who look further (empty for structured invoices and unread scans)."""

    invoice: Invoice
    text: str


async def read(path: Path) -> Reading:
    """Read a document. Raises Unreadable with the reason."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "invoices.reader",
        str(path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(LIMIT):
            out, _ = await child.communicate()
    except TimeoutError:
        raise Unreadable(f"it was not read within {LIMIT} s") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit {child.returncode}"
        raise Unreadable(
            f"the program that reads it was ended by its limits ({how}): the file is damaged or made to be hard to read"
        )
    told = json.loads(out)
    if "error" in told:
        raise Unreadable(told["error"])
    return Reading(Invoice(**told["invoice"]), told["text"])


def read_here(path: Path) -> Reading:
    """Read a document in this process. Raises Unreadable."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise Unreadable(f"the file has {size / 1e6:,.0f} MB, the limit is {MAX_FILE / 1e6:,.0f} MB")
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error
    match kind_of(data):
        case "xml":
            from invoices.einvoice import read_xml

            return Reading(read_xml(data), "")
        case "pdf":
            return _read_pdf(path, data)
        case "picture":
            return _read_scan(path, pdf=False)
    raise Unreadable("it is neither XML, nor PDF, nor a picture")


def kind_of(data: bytes) -> str | None:
    """What the file is, by its first bytes: its name may say anything."""
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    if b"%PDF-" in data[:1024]:
        return PDF
    if (
        head[:3] == b"\xff\xd8\xff"
        or head[:8] == b"\x89PNG\r\n\x1a\n"
        or head[:4] in (b"II*\x00", b"MM\x00*")
        or data[8:12] == b"WEBP"
    ):
        return PICTURE
    if (
        head.startswith(b"<")
        or head[:4] in (b"\xff\xfe<\x00", b"\xfe\xff\x00<")
        or head[:4] in (b"<\x00?\x00", b"\x00<\x00?")
    ):
        return XML
    return None


def _read_pdf(path: Path, data: bytes) -> Reading:
    from invoices.pdf import embedded_invoice, open_pdf, text_of
    from invoices.rules import read_text

    found = embedded_invoice(open_pdf(data))
    if found is not None:
        return Reading(found, "")  # what the sender put into the XML counts, not what is printed beside it
    text = text_of(path)
    if len(text.strip()) < ENOUGH_TEXT:
        return _read_scan(path, pdf=True)
    return Reading(read_text(text, "pdf-text"), text[:MAX_TEXT])


def _read_scan(path: Path, *, pdf: bool) -> Reading:
    from invoices import ocr
    from invoices.rules import read_text

    if not ocr.available():
        return Reading(Invoice(source="ocr"), "")
    text = ocr.read_scan(path, pdf=pdf)
    return Reading(read_text(text, "ocr"), text[:MAX_TEXT])


def main() -> None:
    """The child's side."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU, MAX_CPU))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        reading = read_here(Path(sys.argv[1]))
        told: dict[str, object] = {"invoice": reading.invoice.as_dict(), "text": reading.text}
    except Unreadable as error:
        told = {"error": str(error)}
    except (MemoryError, RecursionError) as error:
        told = {"error": f"reading it takes more memory than is allowed ({type(error).__name__})"}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
