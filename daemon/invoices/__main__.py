"""Reads the sample mailbox, or the mails named, with a daemon of this host, and prints all invoices there are.

`python -m invoices [MAIL]…`
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from invoices.samples import mailbox
from invoices.store import LIST, make_tables
from workerd import JobFailed, Queue, WorkerdError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

COLUMNS = ("number", "date", "seller", "buyer", "total", "currency", "type", "source")
READERS = ("lxml", "pypdf")
WORKERS = "4"
LIMIT = 60.0  # seconds for one job


def main(argv: Sequence[str] | None = None) -> int:
    """Start the daemon unless it runs, read the mails, show invoices and status; 0, or 1 when something failed."""
    parser = argparse.ArgumentParser(
        "python -m invoices",
        description="Reads the invoices of a mailbox; starts the daemon, and the embedded PostgreSQL where DATABASE_URL is not set.",
    )
    parser.add_argument("mails", nargs="*", type=_mail, metavar="MAIL", help="files; without them the sample mailbox")
    mails = parser.parse_args(argv).mails or mailbox()
    for name in READERS:  # before a mail is taken note of whose invoices could not be read
        try:
            import_module(name)
        except ModuleNotFoundError:
            print(f"invoices: {name} is not installed: pip install 'workerd[invoices]'", file=sys.stderr)
            return 1
    code = _workerctl("start", WORKERS, "--tasks", "invoices")
    if code:
        return code
    failures = _failures(mails)
    for failure in failures:
        print(f"invoices: {failure}", file=sys.stderr)
    code = _workerctl("status")
    if "STATE_DIR" not in os.environ:  # else a plain workerctl would look elsewhere
        print("Look further: workerctl jobs list · workerctl stats · workerctl logs · workerctl status")
        print("Stop the daemon and its database: workerctl stop")
    return 1 if failures else code


def _failures(mails: list[Path]) -> list[str]:
    try:
        return asyncio.run(_read(mails))
    except TimeoutError:
        return [
            f"a job did not end within {LIMIT:.0f} s: has the daemon that runs here TASKS=invoices? (workerctl logs)"
        ]
    except WorkerdError as error:
        return [str(error)]


def _mail(name: str) -> Path:
    path = Path(name).resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {name}")
    return path


def _workerctl(*words: str) -> int:
    sys.stdout.flush()
    return subprocess.run([sys.executable, "-m", "workerctl", *words], check=False).returncode


async def _read(mails: list[Path]) -> list[str]:
    """Enqueue the mails, wait for what becomes of them, print the table; gives the errors of the jobs that failed."""
    async with Queue.connect() as queue:
        read = [await queue.enqueue("process_email", {"path": str(mail)}, queue="mail") for mail in mails]
        unpacked, failures = await _results(queue, read)
        found = [job for mail in unpacked for job in mail["jobs"]]
        failures += (await _results(queue, found))[1]
        async with queue.connection() as connection:
            await make_tables(connection)
            _print(await connection.fetch(LIST), f"invoices ({len(read)} mails, {len(found)} new attachments)")
    return failures


async def _results(queue: Queue, jobs: list[int]) -> tuple[list[Any], list[str]]:
    results, failures = [], []
    for job in jobs:
        try:
            results.append(await queue.result(job, timeout=LIMIT))
        except JobFailed as error:
            failures.append(str(error))
    return results, failures


def _print(rows: Sequence[Any], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column == "total" else "left")
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in COLUMNS))
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)


if __name__ == "__main__":
    sys.exit(main())
