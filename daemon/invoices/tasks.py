"""The four tasks of the invoice assistant.

What a handler works with is imported when it runs: whoever only enqueues, and the process that reads one document, need none of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workerd import Discard, Job, Retry, task

if TYPE_CHECKING:
    from invoices.invoice import Invoice
    from invoices.reader import Reading

OUTSIDE = Retry(max=5, interval="10s", factor=3, limit="30m", jitter=0.2)  # services that fail usually recover


@task(queue="mail", retry=OUTSIDE, timeout="5m", needs_database=True)
async def process_email(path: str | None = None, raw: str | None = None, *, job: Job) -> dict[str, Any]:
    """Store the attachments of a mail (a file, or its text) and enqueue one `ocr_extract` for each PDF, XML and picture.

    The same Message-ID twice does nothing twice. The result has the ids of the jobs.
    """
    from invoices import store
    from invoices.invoice import Unreadable
    from invoices.unpack import unpack_file, unpack_text

    if (path is None) == (raw is None):
        raise Discard("process_email takes either path or raw")
    try:
        mail = await unpack_file(Path(path)) if path is not None else await unpack_text(raw or "")
    except Unreadable as error:
        raise Discard(str(error)) from None
    async with job.connection() as connection:
        await store.make_tables(connection)
        async with connection.transaction():
            jobs = []
            if await store.add_mail(connection, mail.message_id, mail.sender, mail.subject, len(mail.paths)):
                jobs = [await ocr_extract.enqueue(each, connection=connection) for each in mail.paths]
            result = {"message_id": mail.message_id, "subject": mail.subject, "jobs": jobs}
            await job.finish_in(connection, result)
    return result


@task(queue="ocr", retry=OUTSIDE, timeout="15m", needs_database=True)
async def ocr_extract(path: str, *, job: Job) -> dict[str, str | None]:
    """Read an invoice from a file: UBL, CII, PDF with or without XML, scan or picture. The result has its fields.

    Row and success are committed together. A document without a required field fails for good and says which.
    """
    from invoices import store
    from invoices.invoice import Unreadable
    from invoices.reader import read

    try:
        reading = await read(Path(path))
    except Unreadable as error:
        raise Discard(f"{Path(path).name}: {error}") from None
    await job.progress(0.5, f"read as {reading.invoice.source}")
    invoice = await _complete(Path(path), reading)
    missing = invoice.missing()
    if missing:
        raise Discard(f"{Path(path).name}: not found in the document ({invoice.source}): {', '.join(missing)}")
    async with job.connection() as connection:
        await store.make_tables(connection)
        async with connection.transaction():
            await store.add_invoice(connection, path, job.id, invoice)
            await job.finish_in(connection, invoice.as_dict())
    return invoice.as_dict()


@task(queue="notify", retry=OUTSIDE, timeout="2m")
async def send_notification(
    subject: str, text: str, to: str | None = None, webhook: str | None = None
) -> dict[str, bool]:
    """Send an e-mail to `to` and a message to `webhook` (else WEBHOOK_URL); at least one of them."""
    from invoices import notify

    address = webhook or os.environ.get("WEBHOOK_URL")
    if to is None and not address:
        raise Discard("nobody to notify: give `to` or `webhook`, or set WEBHOOK_URL")
    if to is not None:
        await notify.send_mail(to, subject, text)
    if address:
        await notify.post(address, {"subject": subject, "text": text})
    return {"mail": to is not None, "webhook": bool(address)}


@task(queue="maintenance", timeout="10m")
def cleanup_files(days: float = 30) -> dict[str, int]:
    """Remove stored attachments older than `days`."""
    from invoices import store

    if days < 0:
        raise Discard("days is negative")
    count, size = store.clean_up(days)
    return {"removed": count, "bytes": size}


async def _complete(path: Path, reading: Reading) -> Invoice:
    """Fill what is missing by the services that are configured."""
    from invoices import llm, mineru, ocr

    invoice, text = reading.invoice, reading.text
    if invoice.missing() and not text and invoice.source == "ocr" and mineru.configured():
        from invoices.rules import read_text

        text = await mineru.read_scan(path)
        invoice = invoice.completed_by(read_text(text, "ocr"))
    if invoice.missing() and text and llm.configured():
        invoice = invoice.completed_by(await llm.ask(text))
    if invoice.source == "ocr" and not text and invoice.missing():
        if ocr.available() or mineru.configured():
            raise Discard(f"{path.name}: it is a scan, and no text was found in it")
        raise Discard(
            f"{path.name}: it is a scan, and nothing here can read scans: install tesseract, or set MINERU_API_TOKEN"
        )
    return invoice
