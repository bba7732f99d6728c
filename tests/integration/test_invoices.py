"""The invoice assistant from mail to table: real documents, hostile ones, pictures, and the tidying up."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shutil
import time
from contextlib import asynccontextmanager
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from invoices import cleanup_files, ocr_extract, process_email
from invoices.invoice import FIELDS, REQUIRED
from invoices.samples import mailbox
from invoices.samples.make import CII, TEXT, UBL, mail, pdf
from tests.support import ROOT, InProcess, hide, until
from workerd import JobFailed, Queue, Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import asyncpg
    from _pytest.mark import ParameterSet

    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.usefixtures("assistant")
FOLDER = Path(os.environ.get("INVOICES") or ROOT.parent / "shared" / "invoices")
DAY = 86400.0  # seconds
MUCH = 8  # parts of a whole: one of them is
BOMB = (
    '<?xml version="1.0"?><!DOCTYPE Invoice [<!ENTITY a0 "boom">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    + "]><Invoice><ID>&a11;</ID></Invoice>"
)


def listed(*, readable: bool) -> list[ParameterSet]:
    """The shared documents that have all required fields, or those that lack one."""
    expected = FOLDER / "expected.jsonl"
    if not expected.is_file():
        reason = "the shared invoices are not here: set INVOICES to their folder"
        return [pytest.param("", {}, id="none", marks=pytest.mark.skip(reason=reason))]
    documents = [json.loads(line) for line in expected.read_text(encoding="utf-8").splitlines() if line]
    return [
        pytest.param(document["file"], document["truth"], id=document["file"])
        for document in documents
        if all(document["truth"][name] is not None for name in REQUIRED) == readable
    ]


@pytest.fixture
def attachments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the assistant keeps its files."""
    folder = tmp_path / "kept"
    folder.mkdir()
    monkeypatch.setenv("ATTACHMENTS_DIR", str(folder))
    return folder


@pytest.fixture
async def assistant(settings: Settings, attachments: Path) -> AsyncIterator[InProcess]:
    """A daemon that runs the assistant's tasks."""
    async with InProcess(settings.model_copy(update={"tasks": ("invoices",)})) as running:
        yield running


async def extract(queue: Queue, path: Path) -> dict[str, str | None]:
    found: dict[str, str | None] = await queue.result(await queue.enqueue(ocr_extract, {"path": str(path)}), timeout=60)
    return found


async def refusal(queue: Queue, db: DB, path: Path) -> str:
    """The one line with which the job of an unreadable document failed, at its first attempt."""
    job = await queue.enqueue(ocr_extract, {"path": str(path)})
    with pytest.raises(JobFailed):
        await queue.result(job, timeout=60)
    row = await db.fetchrow("SELECT state, attempt, error FROM workerd.job WHERE id = $1", job)
    assert row is not None
    assert (row["state"], row["attempt"]) == ("failed", 1)
    reason: str = row["error"]
    assert len(reason.splitlines()) == 1, reason
    assert "Traceback" not in reason
    return reason


async def receive(queue: Queue, **payload: str) -> Any:
    """What `process_email` answers, after the jobs that it made."""
    told = await queue.result(await queue.enqueue(process_email, payload), timeout=60)
    for job in told["jobs"]:
        await queue.result(job, timeout=60)
    return told


@pytest.mark.parametrize(("file", "truth"), listed(readable=True))
async def test_a_real_document_gives_the_expected_fields(queue: Queue, file: str, truth: dict[str, str | None]) -> None:
    found = await extract(queue, FOLDER / file)
    assert {name: found[name] for name in FIELDS} == truth


@pytest.mark.parametrize(("file", "truth"), listed(readable=False))
async def test_a_real_document_that_lacks_a_field_fails_and_names_it(
    queue: Queue, db: DB, file: str, truth: dict[str, str | None]
) -> None:
    reason = await refusal(queue, db, FOLDER / file)
    assert file in reason
    named = {name.strip() for name in reason.rpartition(":")[2].split(",")}
    assert named == {name for name in REQUIRED if truth[name] is None}


async def test_the_sample_mailbox_becomes_four_invoices(queue: Queue, db: DB, attachments: Path) -> None:
    told = [await receive(queue, path=str(path)) for path in mailbox()]
    assert [len(each["jobs"]) for each in told] == [1, 1, 1, 1, 0]
    rows = await db.fetch("SELECT * FROM invoices.invoice ORDER BY job_id")
    assert [row["job_id"] for row in rows] == [job for each in told for job in each["jobs"]]
    fields = ("number", "date", "currency", "total", "type", "source", "seller")
    assert ["|".join(f"{row[name]}" for name in fields) for row in rows] == [
        "NB-2026-0117|2026-03-02|EUR|1428.00|380|ubl|Nordbrise Segel GmbH",
        "GS-88|2026-05-20|EUR|59.50|381|cii|Kielholz & Söhne AG",
        "2026/0042|2026-06-11|EUR|342.00|380|pdf-xml|Atelier du Phare SARL",
        "BT-4471|2026-04-14|GBP|95.40|380|pdf-text|Brightwater Tools Ltd",
    ]
    assert {row["buyer"] for row in rows} == {"Hafenkontor Lübben KG"}
    assert sorted(row["path"] for row in rows) == sorted(str(path) for path in attachments.iterdir())
    assert await db.fetchval("SELECT count(*) FROM invoices.mail") == 4


async def test_a_mail_received_again_adds_nothing(queue: Queue, db: DB, attachments: Path) -> None:
    path = str(mailbox()[0])
    first, again = await receive(queue, path=path), await receive(queue, path=path)
    assert len(first["jobs"]) == 1
    assert again == {**first, "jobs": []}
    assert await db.fetchval("SELECT count(*) FROM invoices.invoice") == 1
    assert await db.fetchval("SELECT count(*) FROM invoices.mail") == 1
    assert len(list(attachments.iterdir())) == 1


async def test_a_mail_that_is_read_by_several_workers_at_once_fails_for_none(
    queue: Queue, db: DB, attachments: Path
) -> None:
    jobs = await process_email.enqueue_many([{"path": str(mailbox()[0])}] * 40)
    made = [await queue.result(job, timeout=30) for job in jobs]
    assert sum(len(each["jobs"]) for each in made) == 1
    assert len(list(attachments.iterdir())) == 1


async def test_a_mail_given_as_text_is_read_like_one_in_a_file(queue: Queue, db: DB) -> None:
    told = await receive(queue, raw=mailbox()[1].read_text(encoding="utf-8"))
    row = await db.fetchrow("SELECT number, job_id FROM invoices.invoice")
    assert row is not None
    assert (row["number"], [row["job_id"]]) == ("GS-88", told["jobs"])


async def test_each_distinct_attachment_of_a_mail_becomes_a_job(queue: Queue, db: DB) -> None:
    bill = ("a.xml", "xml", UBL.encode())
    words = ("notes.bin", "octet-stream", b"nothing to read")
    message = mail(9, "a@b.example", "Zwei", "Text", bill, bill, ("b.pdf", "pdf", pdf(TEXT)), words)
    assert len((await receive(queue, raw=bytes(message).decode()))["jobs"]) == 2
    numbers = await db.fetchval("SELECT array_agg(number ORDER BY number) FROM invoices.invoice")
    assert numbers == ["BT-4471", "NB-2026-0117"]


async def test_the_name_of_an_attachment_leads_to_no_other_directory(
    queue: Queue, tmp_path: Path, attachments: Path
) -> None:
    for number, name in enumerate(("../../outside.xml", "/outside.xml", "..\\..\\outside.xml", "..xml"), 20):
        message = mail(number, "a@b.example", "Pfad", "Text", (name, "xml", UBL.encode()))
        await receive(queue, raw=bytes(message).decode())
    assert len(list(attachments.iterdir())) == 4
    assert len(list(tmp_path.rglob("*.xml"))) == 4


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ({}, "either path or raw"),
        ({"path": "a", "raw": "b"}, "either path or raw"),
        ({"path": "no/such/mail.eml"}, "No such file"),
        ({"raw": "\n\njust words"}, "no e-mail"),
    ],
)
async def test_what_is_no_mail_is_refused(queue: Queue, payload: dict[str, str], why: str) -> None:
    with pytest.raises(JobFailed, match=why):
        await queue.result(await queue.enqueue(process_email, payload), timeout=60)


def encrypted() -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(PdfReader(BytesIO(pdf(TEXT))))
    writer.encrypt("secret", algorithm="RC4-128")
    written = BytesIO()
    writer.write(written)
    return written.getvalue()


def locked_with_aes() -> bytes:
    """A PDF whose password is tried with AES-256: nothing of ours can do that by itself."""
    sizes = {"O": 48, "U": 48, "OE": 32, "UE": 32, "Perms": 16}
    keys = " ".join(f"/{name} <{'00' * size}>" for name, size in sizes.items())
    crypt = f"/V 5 /R 6 /P -4 {keys} /CF << /StdCF << /CFM /AESV3 >> >> /StmF /StdCF /StrF /StdCF"
    return pdf(TEXT).replace(b"trailer\n<<", f"trailer\n<< /Encrypt << /Filter /Standard {crypt} >> ".encode())


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "encrypted": (encrypted, "the PDF is encrypted"),
    "encrypted with AES": (locked_with_aes, "the PDF is encrypted"),
    "truncated": (lambda: pdf(TEXT)[:700], "the PDF is damaged"),
    "head alone": (lambda: b"%PDF-1.7\n", "the PDF is damaged"),
    "empty": (lambda: b"", "neither XML, nor PDF, nor a picture"),
    "words": (lambda: b"Dear all, please pay.", "neither XML, nor PDF, nor a picture"),
    "51 MB": (lambda: b"<" * 51_000_000, "the file has 51 MB, the limit is 25 MB"),
    "entity bomb": (BOMB.encode, "document type declaration|entit"),
    "half an XML": (lambda: UBL.encode()[:900], "the XML is broken"),
    "page of the web": (lambda: b"<html><body>Invoice 1</body></html>", "its root element is html"),
    "no such day": (lambda: UBL.replace("2026-03-02", "2026-02-31").encode(), r"not found .*: date$"),
    "endless amount": (lambda: UBL.replace("1428.00", "1E999999").encode(), r"not found .*: total$"),
    "broken picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), "picture cannot be read|nothing here can read scans"),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_document_fails_in_one_line_and_the_daemon_goes_on(
    queue: Queue, db: DB, tmp_path: Path, kind: str
) -> None:
    content, why = HOSTILE[kind]
    path = tmp_path / "document.pdf"
    path.write_bytes(content())
    reason = await refusal(queue, db, path)
    assert reason.startswith("document.pdf: ")
    assert re.search(why, reason), reason
    good = tmp_path / "good.xml"
    good.write_text(UBL, encoding="utf-8")
    assert (await extract(queue, good))["number"] == "NB-2026-0117"


async def test_a_path_that_leads_to_nothing_fails_with_the_reason(queue: Queue, db: DB, tmp_path: Path) -> None:
    assert "No such file or directory" in await refusal(queue, db, tmp_path / "gone.pdf")
    assert "Is a directory" in await refusal(queue, db, tmp_path)


async def test_an_external_entity_is_refused_and_its_file_not_shown(queue: Queue, db: DB, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("open sesame", encoding="utf-8")
    declared = f'<!DOCTYPE Invoice [<!ENTITY stolen SYSTEM "{secret.as_uri()}">]>'
    text = UBL.replace("<Invoice", f"{declared}<Invoice", 1).replace("NB-2026-0117", "&stolen;")
    path = tmp_path / "entity.xml"
    path.write_text(text, encoding="utf-8")
    assert "document type declaration" in await refusal(queue, db, path)
    assert await db.fetchval("SELECT count(*) FROM workerd.job j WHERE j::text LIKE '%sesame%'") == 0


async def test_reading_a_document_again_replaces_its_row(queue: Queue, db: DB, tmp_path: Path) -> None:
    path = tmp_path / "bill.xml"
    for total in ("1428.00", "1430.00"):
        path.write_text(UBL.replace("1428.00", total), encoding="utf-8")
        assert (await extract(queue, path))["total"] == total
    assert [f"{row[0]}" for row in await db.fetch("SELECT total FROM invoices.invoice")] == ["1430.00"]


async def test_the_print_does_not_complete_the_xml_within_a_pdf(queue: Queue, db: DB, tmp_path: Path) -> None:
    values = {"number": "X-1", "type": "380", "date": "20260611", "seller": "Atelier du Phare SARL", "currency": ""}
    path = tmp_path / "mixed.pdf"
    path.write_bytes(pdf(TEXT, CII.format(**values, total="1.00").encode()))
    assert (await refusal(queue, db, path)).endswith(": currency")


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "pdf"])
async def test_a_picture_of_an_invoice_is_read(queue: Queue, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"scan.{ending}"
    draw(path)
    found = await extract(queue, path)
    assert (found["number"], found["date"], found["currency"]) == ("BT-4471", "2026-04-14", "GBP")
    assert (found["total"], found["seller"], found["source"]) == ("95.40", "Brightwater Tools Ltd", "ocr")


async def test_without_a_reader_of_scans_it_says_what_to_install(
    queue: Queue, db: DB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "scan.png"
    draw(path)
    assert "install tesseract, or set MINERU_API_TOKEN" in await refusal(queue, db, path)


async def test_without_a_library_it_says_what_to_install(
    queue: Queue, db: DB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, tmp_path, "lxml")
    path = tmp_path / "invoice.xml"
    path.write_text(UBL, encoding="utf-8")
    assert "reading it needs lxml: pip install 'workerd[invoices]'" in await refusal(queue, db, path)


def draw(path: Path) -> None:
    """A page with the lines of the sample invoice, as a scanner would send it."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (1700, 1000), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(40)
    for place, line in enumerate(TEXT):
        pen.text((80, 60 + 70 * place), line, fill="black", font=font)
    page.save(path, resolution=200.0)


def aged(path: Path, days: float) -> Path:
    when = time.time() - days * DAY
    os.utime(path, (when, when), follow_symlinks=False)
    return path


async def test_cleanup_removes_old_files_of_its_directory_alone(
    queue: Queue, tmp_path: Path, attachments: Path
) -> None:
    outside = tmp_path / "outside"
    for folder in (outside, attachments / "folder"):
        folder.mkdir()
        (folder / "old.pdf").write_bytes(b"x")
        aged(folder / "old.pdf", 365)
    (attachments / "link.pdf").symlink_to(outside / "old.pdf")
    (attachments / "folder link").symlink_to(outside, target_is_directory=True)
    (attachments / "dangling").symlink_to(outside / "nothing")
    os.mkfifo(attachments / "pipe")
    for name, days in {"old.pdf": 8, "older.xml": 400, "young.pdf": 6}.items():
        (attachments / name).write_bytes(b"12345")
        aged(attachments / name, days)
    for entry in ("link.pdf", "folder link", "dangling", "pipe", "folder"):
        aged(attachments / entry, 365)

    job = await queue.enqueue(cleanup_files, {"days": 7})
    assert await queue.result(job, timeout=60) == {"removed": 2, "bytes": 10}
    left = {"young.pdf", "link.pdf", "folder link", "dangling", "pipe", "folder"}
    assert {path.name for path in attachments.iterdir()} == left
    assert (attachments / "folder" / "old.pdf").exists()
    assert (outside / "old.pdf").exists()


async def test_cleanup_has_nothing_to_do_without_a_directory_and_refuses_nonsense(
    queue: Queue, attachments: Path
) -> None:
    attachments.rmdir()
    assert await queue.result(await queue.enqueue(cleanup_files), timeout=60) == {"removed": 0, "bytes": 0}
    with pytest.raises(JobFailed, match="days is negative"):
        await queue.result(await queue.enqueue(cleanup_files, {"days": -1}), timeout=60)


async def test_the_row_and_the_success_are_written_by_one_transaction(queue: Queue, db: DB, tmp_path: Path) -> None:
    path = tmp_path / "bill.xml"
    path.write_text(UBL, encoding="utf-8")
    job = await queue.enqueue(ocr_extract, {"path": str(path)})
    await queue.result(job, timeout=60)
    wrote = await db.fetchval("SELECT xmin::text FROM invoices.invoice WHERE job_id = $1", job)
    assert wrote is not None
    assert await db.fetchval("SELECT xmin::text FROM workerd.history WHERE id = $1", job) == wrote


async def test_a_row_that_cannot_be_committed_leaves_no_success(
    queue: Queue, db: DB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ocr_extract, "retry", Retry(max=1000, interval=0.05))
    first, second = tmp_path / "first.xml", tmp_path / "second.xml"
    for path in (first, second):
        path.write_text(UBL, encoding="utf-8")
    await extract(queue, first)
    await db.execute("ALTER TABLE invoices.invoice ADD CONSTRAINT one UNIQUE (number) DEFERRABLE INITIALLY DEFERRED")
    job = await queue.enqueue(ocr_extract, {"path": str(second)})

    async def tried() -> Any:
        return await db.fetchval("SELECT attempts FROM workerd.job WHERE id = $1 AND failures > 0", job)

    assert "UniqueViolationError" in await until(tried, "a commit has failed")
    assert await db.fetchval("SELECT count(*) FROM invoices.invoice") == 1
    await db.execute("ALTER TABLE invoices.invoice DROP CONSTRAINT one")
    await queue.result(job, timeout=60)
    assert await db.fetchval("SELECT job_id FROM invoices.invoice WHERE path = $1", str(second)) == job


def work() -> float:
    """Seconds of CPU that this process and those that it has waited for have had."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


@asynccontextmanager
async def heartbeat() -> AsyncIterator[None]:
    """Fails when one turn of the event loop did much of all the work that was done meanwhile: others have to do that."""
    turns = [0.0]

    async def beat() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.005)
            turns.append(time.thread_time() - began)

    before = work()
    beating = asyncio.create_task(beat())
    yield
    beating.cancel()
    assert max(turns) < (work() - before) / MUCH


def pages(count: int, lines: int) -> bytes:
    """A PDF that takes long to read; what counts is on its first page."""
    from reportlab.pdfgen.canvas import Canvas

    written = BytesIO()
    canvas = Canvas(written, invariant=True)
    for number in range(count):
        for place, line in enumerate(TEXT if number == 0 else ["Lorem ipsum dolor sit amet " * 4] * lines):
            canvas.drawString(20, 800 - 7 * place, line)
        canvas.showPage()
    canvas.save()
    return written.getvalue()


async def test_large_documents_do_not_hold_up_the_loop(queue: Queue, tmp_path: Path) -> None:
    many = UBL.replace("</Invoice>", "<Note>x</Note>" * 200_000 + "</Invoice>").encode()
    contents = {"a.xml": many, "b.pdf": pages(12, 60), "c.pdf": pdf(TEXT) + bytes(10_000_000), "d.pdf": pdf(TEXT, many)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    async with heartbeat():
        found = await asyncio.gather(*(extract(queue, tmp_path / name) for name in contents))
    assert [each["number"] for each in found] == ["NB-2026-0117", "BT-4471", "BT-4471", "NB-2026-0117"]


async def test_large_mails_do_not_hold_up_the_loop(queue: Queue, tmp_path: Path) -> None:
    mail = EmailMessage()
    mail["Message-ID"], mail["From"], mail["Subject"] = "<large@example.org>", "a@example.org", "large"
    mail.set_content("A large one.")
    mail.add_attachment(pdf(TEXT) + bytes(20_000_000), maintype="application", subtype="pdf", filename="large.pdf")
    path = tmp_path / "large.eml"
    path.write_bytes(bytes(mail))
    async with heartbeat():
        job = await queue.enqueue("process_email", {"path": str(path)})
        told = await queue.result(job, timeout=60)
    assert (told["subject"], len(told["jobs"])) == ("large", 1)
    assert (await queue.result(told["jobs"][0], timeout=60))["number"] == "BT-4471"
