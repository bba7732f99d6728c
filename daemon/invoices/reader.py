"""Reads one document: what it is, and the invoice in it (`python -m invoices.reader PATH` is the process that does it)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invoices import child
from invoices.invoice import Invoice, Unreadable

MAX_FILE = 25_000_000  # bytes
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
    told = await child.run("invoices.reader", path)
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


def _work(path: str) -> dict[str, Any]:
    reading = read_here(Path(path))
    return {"invoice": reading.invoice.as_dict(), "text": reading.text}


if __name__ == "__main__":
    child.serve(_work)
