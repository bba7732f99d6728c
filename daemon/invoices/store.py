"""Where invoices are kept: tables in the schema `invoices`, attachments in a directory."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invoices.invoice import Invoice
    from invoices.mail import Attachment, Mail

LOCK = 0x696E766F69636573  # "invoices" in hexadecimal: serialises the making of the tables

SCHEMA = """
    CREATE SCHEMA IF NOT EXISTS invoices;
    CREATE TABLE IF NOT EXISTS invoices.mail (
        message_id text PRIMARY KEY, sender text NOT NULL, subject text NOT NULL, attachments int NOT NULL,
        received_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE IF NOT EXISTS invoices.invoice (
        path text PRIMARY KEY, job_id bigint NOT NULL, number text NOT NULL, date date NOT NULL, currency text NOT NULL,
        seller text NOT NULL,
        buyer text, total numeric NOT NULL, type text, source text NOT NULL, read_at timestamptz NOT NULL DEFAULT now());
"""
_ADD_MAIL = """
    INSERT INTO invoices.mail (message_id, sender, subject, attachments) VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING RETURNING true
"""
_ADD_INVOICE = """
    INSERT INTO invoices.invoice (path, job_id, number, date, currency, seller, buyer, total, type, source)
    VALUES ($1, $2, $3, $4::text::date, $5, $6, $7, $8::text::numeric, $9, $10)
    ON CONFLICT (path) DO UPDATE SET job_id = excluded.job_id, number = excluded.number, date = excluded.date, currency = excluded.currency,
        seller = excluded.seller, buyer = excluded.buyer, total = excluded.total, type = excluded.type,
        source = excluded.source, read_at = now()
"""
LIST = "SELECT number, date, seller, buyer, total, currency, type, source, path FROM invoices.invoice ORDER BY date, number, path"

_made = False


async def make_tables(connection: Any) -> None:
    """Make the tables once a process; in a transaction of its own, before the caller's."""
    global _made
    if _made and await connection.fetchval("SELECT to_regclass('invoices.invoice') IS NOT NULL"):
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        await connection.execute(SCHEMA)
    _made = True


async def add_mail(connection: Any, message_id: str, sender: str, subject: str, attachments: int) -> bool:
    """Record a mail; False when it was recorded before."""
    new = await connection.fetchval(_ADD_MAIL, message_id, sender, subject, attachments)
    return new is not None


async def add_invoice(connection: Any, path: str, job_id: int, invoice: Invoice) -> None:
    """Record what was read in a document; reading it again replaces it."""
    await connection.execute(
        _ADD_INVOICE,
        path,
        job_id,
        invoice.number,
        invoice.date,
        invoice.currency,
        invoice.seller,
        invoice.buyer,
        invoice.total,
        invoice.type,
        invoice.source,
    )


def directory() -> Path:
    """Where attachments are stored: ATTACHMENTS_DIR, else STATE_DIR/attachments, else ./attachments."""
    given = os.environ.get("ATTACHMENTS_DIR")
    return Path(given) if given else Path(os.environ.get("STATE_DIR") or ".") / "attachments"


def save(mail: Mail, attachment: Attachment) -> Path:
    """Store an attachment durably under a name that depends on mail and content alone: doing it again makes no second file."""
    folder = directory().resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark = hashlib.sha256(mail.message_id.encode() + b"\0" + attachment.content).hexdigest()[:16]
    path = folder / f"{mark}-{attachment.name}"
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # the same mail may be unpacked by several at once
    with partial.open("wb") as file:
        file.write(attachment.content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return path


def clean_up(days: float) -> tuple[int, int]:
    """Remove stored files older than `days`; returns how many, and their bytes. Follows no link, enters no directory."""
    folder = directory()
    limit = time.time() - days * 86400
    count = size = 0
    if not folder.is_dir():
        return 0, 0
    for entry in os.scandir(folder):
        found = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and found.st_mtime < limit:
            Path(entry.path).unlink(missing_ok=True)
            count += 1
            size += found.st_size
    return count, size
