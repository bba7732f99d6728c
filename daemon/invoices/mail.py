"""E-mails: parsed with the standard library, as a value."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from email import policy
from email.parser import BytesParser
from typing import TYPE_CHECKING

from invoices.invoice import Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import EmailMessage

MAX_MAIL = 40_000_000  # bytes: a document of the largest size that is read, in base64
MAX_ATTACHMENTS = 100
KINDS = {
    "application/pdf": ".pdf",
    "application/xml": ".xml",
    "text/xml": ".xml",
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/tiff": ".tif",
    "image/webp": ".webp",
}
ENDINGS = {
    ".pdf": ".pdf",
    ".xml": ".xml",
    ".png": ".png",
    ".jpg": ".jpg",
    ".jpeg": ".jpg",
    ".tif": ".tif",
    ".tiff": ".tif",
    ".webp": ".webp",
}


@dataclass(frozen=True)
class Attachment:
    """`name` is safe as a file's name; `content` the bytes."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Mail:
    """`message_id` identifies the mail; a mail without one is identified by its content."""

    message_id: str
    sender: str
    subject: str
    attachments: tuple[Attachment, ...]


def parse(raw: bytes) -> Mail:
    """Parse a mail. Raises Unreadable when it is none."""
    if len(raw) > MAX_MAIL:
        raise Unreadable(f"the mail has {len(raw):,} bytes, the limit is {MAX_MAIL:,}")
    try:
        message: EmailMessage = BytesParser(policy=policy.default).parsebytes(raw)
    except RecursionError:
        raise Unreadable("the mail's parts are nested too deep") from None
    if not message.keys():
        raise Unreadable("this is no e-mail: it has no header")
    attachments = tuple(_attachments(message))
    if len(attachments) > MAX_ATTACHMENTS:
        raise Unreadable(f"the mail has {len(attachments)} attachments, the limit is {MAX_ATTACHMENTS}")
    identity = _header(message, "Message-ID") or f"<{hashlib.sha256(raw).hexdigest()}@content>"
    return Mail(identity, _header(message, "From"), _header(message, "Subject"), attachments)


def _attachments(message: EmailMessage) -> Iterator[Attachment]:
    for part in message.walk():
        if part.is_multipart():
            continue
        ending = _ending(part)
        if ending is None or (
            part.get_content_disposition() != "attachment"
            and part.get_filename() is None
            and not part.get_content_type().endswith("pdf")
        ):
            continue
        content = part.get_payload(decode=True)
        if isinstance(content, bytes) and content:
            yield Attachment(_safe_name(part.get_filename() or "attachment", ending), content)


def _ending(part: EmailMessage) -> str | None:
    """By the file's name, else by the declared type: many programs send everything as octet-stream."""
    name = (part.get_filename() or "").lower()
    by_name = next((ENDINGS[end] for end in ENDINGS if name.endswith(end)), None)
    return by_name or KINDS.get(part.get_content_type())


def _safe_name(name: str, ending: str) -> str:
    """Letters, digits and a few marks of the last part of a sender's file name."""
    last = re.split(r"[/\\]", name)[-1]
    stem = re.sub(r"[^\w.-]+", "_", last).strip("._").encode()[:160].decode(errors="ignore")
    stem = stem[: -len(ending)] if stem.lower().endswith(ending) else stem
    return f"{stem or 'attachment'}{ending}"


def _header(message: EmailMessage, name: str) -> str:
    """A header as clean text; a broken one is taken as far as it can be read."""
    try:
        value = str(message.get(name, ""))
    except (ValueError, IndexError, AttributeError):
        value = dict(message.raw_items()).get(name, "")
    return "".join(c for c in " ".join(value.split()) if c.isprintable())[:500]
