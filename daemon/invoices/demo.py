"""Sends the sample mailbox, or the mails named, through the running daemon and prints the invoices.

`python -m invoices.demo [MAIL]…`
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from invoices.samples import mailbox
from invoices.store import LIST
from workerd import JobFailed, Queue

COLUMNS = ("number", "date", "seller", "buyer", "total", "currency", "type", "source")
LIMIT = 120.0  # seconds for one job


async def show(mails: list[Path]) -> int:
    """Enqueue the mails, wait for what becomes of them, print the table; returns the number of jobs that failed."""
    from rich.console import Console
    from rich.table import Table

    async with Queue.connect() as queue:
        read = [await queue.enqueue("process_email", {"path": str(mail.resolve())}, queue="mail") for mail in mails]
        found = [job for mail in read for job in (await queue.result(mail, timeout=LIMIT))["jobs"]]
        failed = 0
        for job in found:
            try:
                await queue.result(job, timeout=LIMIT)
            except JobFailed as error:
                failed += 1
                print(error, file=sys.stderr)
        async with queue.connection() as connection:
            rows = await connection.fetch(LIST)
    table = Table(
        title=f"invoices ({len(read)} mails, {len(found)} new attachments)", title_justify="left", header_style="bold"
    )
    for column in COLUMNS:
        table.add_column(column, justify="right" if column == "total" else "left")
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in COLUMNS))
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)
    return failed


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(show([Path(name) for name in sys.argv[1:]] or mailbox())) else 0)
