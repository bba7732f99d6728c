"""Text of scanned pages by tesseract, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from invoices.invoice import Unreadable
from invoices.pdf import pictures_of

PAGE_LIMIT = 60  # seconds a page


def available() -> bool:
    return shutil.which("tesseract") is not None


def read_scan(path: Path, *, pdf: bool) -> str:
    """The text of a picture, or of the first pages of a PDF. Raises Unreadable."""
    if not pdf:
        return _read_picture(path)
    with tempfile.TemporaryDirectory(prefix="invoices-") as folder:
        return "\n".join(_read_picture(page) for page in pictures_of(path, Path(folder)))


def _read_picture(path: Path) -> str:
    command = ["tesseract", str(path), "stdout", "-l", _languages(), "--psm", "6"]
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=PAGE_LIMIT).stdout.decode(
            errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise Unreadable(f"tesseract did not read a page within {PAGE_LIMIT} s") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        raise Unreadable(f"the picture cannot be read: {said[-1] if said else error}") from error


@cache
def _languages() -> str:
    """Those of English, German and French that are installed."""
    listed = subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True, check=False).stdout.split()
    return "+".join(language for language in ("eng", "deu", "fra") if language in listed) or "eng"
