"""What a PDF holds: embedded invoices, text, and pages as pictures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from invoices.einvoice import read_xml
from invoices.invoice import Invoice, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pypdf import PdfReader

MAX_PAGES = 20  # read for text; totals stand on the first or the last ones
OCR_PAGES = 5
OCR_SCALE = 300 / 72  # pixels a point: 300 dpi


def open_pdf(data: bytes) -> PdfReader:
    """Raises Unreadable for a damaged or encrypted file."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("the PDF is encrypted: ask the sender for one without a password")
        len(reader.pages)
    except Unreadable:
        raise
    except DependencyError:
        raise Unreadable(
            "the PDF is encrypted with AES, which needs the package cryptography: pip install pypdf[crypto]"
        ) from None
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise Unreadable(f"the PDF is damaged: {error}") from error
    return reader


def embedded_invoice(reader: PdfReader) -> Invoice | None:
    """The first attachment that is an invoice, whatever its name; None when there is none."""
    from dataclasses import replace

    broken: Unreadable | None = None
    for name, data in _attachments(reader):
        try:
            return replace(read_xml(data), source="pdf-xml")
        except Unreadable as error:
            if name.lower().endswith(".xml"):
                broken = error
    if broken is not None:
        raise Unreadable(f"the invoice in the PDF cannot be read: {broken}")
    return None


def _attachments(reader: PdfReader) -> Iterator[tuple[str, bytes]]:
    from pypdf.errors import PyPdfError

    try:
        for name, files in reader.attachments.items():
            for data in files:
                yield name, data
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"the attachments of the PDF are damaged: {error}") from error


def text_of(path: Path) -> str:
    """The text of the first and last pages, in reading order. Raises Unreadable."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
        try:
            count = len(document)
            pages = [*range(min(count, MAX_PAGES // 2)), *range(max(MAX_PAGES // 2, count - MAX_PAGES // 2), count)]
            return "\n".join(document[page].get_textpage().get_text_bounded() for page in pages)
        finally:
            document.close()
    except pypdfium2.PdfiumError as error:
        raise Unreadable(f"the PDF is damaged: {error}") from error


def pictures_of(path: Path, folder: Path) -> list[Path]:
    """The first pages as PNG files in `folder`. Raises Unreadable."""
    import pypdfium2

    written = []
    try:
        document = pypdfium2.PdfDocument(path)
        try:
            for number in range(min(len(document), OCR_PAGES)):
                page = document[number]
                scale = min(
                    OCR_SCALE, 5000 / max(page.get_width(), page.get_height(), 1)
                )  # a page of ten metres is an attack
                file = folder / f"{number}.png"
                page.render(scale=scale).to_pil().save(file)
                written.append(file)
        finally:
            document.close()
    except pypdfium2.PdfiumError as error:
        raise Unreadable(f"the PDF is damaged: {error}") from error
    return written
