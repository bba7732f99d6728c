"""What the rules read in texts, what becomes of senders' file names, and of the waits that services ask for."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoices import llm, mineru, notify, store
from invoices.http import LONGEST_WAIT, ServiceError, check, retry_after
from invoices.invoice import Invoice, Unreadable, clean, parse_amount, parse_currency, parse_date
from invoices.mail import MAX_ATTACHMENTS, parse
from invoices.rules import read_text
from workerd import Discard, RetryAfter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LETTER = """\
Bootswerft Lübbe GmbH · Am Kai 4 · 18439 Stralsund

Kunde: Hafenkontor Ost KG
Rechnungsnummer: RE-2026/0042
Rechnungsdatum: 3. März 2026
Zwischensumme            1.037,44 €
19 % USt                   197,12 €
Gesamtbetrag             1.234,56 €
"""


def read(text: str) -> Invoice:
    return read_text(text, "pdf-text")


def test_a_whole_letter_is_read() -> None:
    assert read(LETTER) == Invoice(
        source="pdf-text",
        number="RE-2026/0042",
        date="2026-03-03",
        currency="EUR",
        seller="Bootswerft Lübbe GmbH",
        buyer="Hafenkontor Ost KG",
        total="1234.56",
        type="380",
    )


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("Invoice number: INV-2026-17", "INV-2026-17"),
        ("Invoice no. 4711", "4711"),
        ("Invoice #7", "7"),
        ("Rechnungsnummer: RE-2026/0042", "RE-2026/0042"),
        ("Rechnungs-Nr.: 880055", "880055"),
        ("Rechnung Nr. 0815", "0815"),
        ("Facture n° FA-2026-001", "FA-2026-001"),
        ("Facture numéro : FA_9.1", "FA_9.1"),
        ("Avoir n° AV-1", "AV-1"),
        ("Gutschriftsnummer 88/2026", "88/2026"),
        ("Order number: 55\nInvoice number: INV-9.", "INV-9"),
        ("INVOICE\nBT-4471\n", "BT-4471"),
        ("Your invoice is overdue", None),
        ("Invoice date: 14.04.2026", None),
        (f"Invoice no. {'9' * 100}", None),
    ],
)
def test_the_number_is_found_behind_its_label(line: str, number: str | None) -> None:
    assert read(line).number == number


@pytest.mark.parametrize(
    ("line", "date"),
    [
        ("Invoice date: 14 April 2026", "2026-04-14"),
        ("Invoice date: April 14, 2026", "2026-04-14"),
        ("Date of issue: 3 Sept. 2026", "2026-09-03"),
        ("Invoice date: 04/25/2026", "2026-04-25"),  # no month 25: the American order
        ("Invoice date: 2026-04-14", "2026-04-14"),
        ("Rechnungsdatum: 14.04.2026", "2026-04-14"),
        ("Datum: 3. Januar 2026", "2026-01-03"),
        ("Stralsund, 14. März 2026", "2026-03-14"),
        ("Date de facture : 14/04/2026", "2026-04-14"),
        ("Paris, le 3 août 2026", "2026-08-03"),
        ("Invoice date\n14 April 2026", "2026-04-14"),
        ("Due date: 30.04.2026\nInvoice date: 14.04.2026", "2026-04-14"),
        ("Delivery date: 01.02.2026\nDate: 05.02.2026", "2026-02-05"),
        ("Lieferdatum 01.01.2026\nDatum: 02.01.2026", "2026-01-02"),
        ("Date d'échéance : 30/04/2026\nDate d\u2019émission : 14/04/2026", "2026-04-14"),
        ("Rechnungsdatum: 31.02.2026", None),
        ("Datum: 3. Brumaire 2026", None),
        ("no day at all", None),
    ],
)
def test_the_date_is_found_in_three_languages(line: str, date: str | None) -> None:
    assert read(line).date == date


@pytest.mark.parametrize(
    ("line", "total", "currency"),
    [
        ("Gesamtbetrag: 1.234,56 €", "1234.56", "EUR"),
        ("Total: 1,234.56 USD", "1234.56", "USD"),
        ("Total TTC : 1 234,56 EUR", "1234.56", "EUR"),
        ("Total TTC 1\u202f234,56 €", "1234.56", "EUR"),
        ("Net à payer : 1\u00a0234,56 €", "1234.56", "EUR"),
        ("Total CHF 1'234.50", "1234.50", "CHF"),
        ("Summe 1.234.567,89 EUR", "1234567.89", "EUR"),
        ("Amount due $12.00", "12.00", "USD"),
        ("Total £95.40", "95.40", "GBP"),
        ("Gesamtbetrag in EUR -59,50", "-59.50", "EUR"),
        ("Subtotal 100.00\nTotal 119.00", "119.00", None),
        ("Zwischensumme 100,00\nSumme 119,00", "119.00", None),
        ("Total HT 100,00\nTotal TTC 120,00", "120.00", None),
        ("Total 119.00\nGrand total 125.00", "125.00", None),
        ("Gesamtbetrag 1.234 EUR", None, "EUR"),  # no cents: thousands, not 1.23
        ("Total 12.345 EUR", None, "EUR"),
        ("Total incl. 19.00 % VAT: 119.00", None, None),  # the rate is not the total
        ("Total due by 12.03.2026: 95.40", None, None),  # nor is the day
        ("Total 2    234,00", None, None),  # two columns, not 2234
        ("Total", None, None),
    ],
)
def test_the_total_and_its_currency_are_read_or_left_to_others(
    line: str, total: str | None, currency: str | None
) -> None:
    found = read(line)
    assert (found.total, found.currency) == (total, currency)


def test_the_currency_named_most_often_counts() -> None:
    assert read("10.00 EUR\n20.00 EUR\n(about 33 USD)").currency == "EUR"


@pytest.mark.parametrize(
    ("text", "seller", "buyer"),
    [
        ("Seller: Brightwater Tools\nBill to: Harbour Ltd", "Brightwater Tools", "Harbour Ltd"),
        ("Lieferant: Nordbrise\nRechnungsempfänger: Kontor KG", "Nordbrise", "Kontor KG"),
        ("Fournisseur : Atelier du Phare\nClient : Port SA", "Atelier du Phare", "Port SA"),
        ("Brightwater Tools Ltd, 12 Quay Street, Bristol", "Brightwater Tools Ltd", None),
        ("Kielholz & Söhne AG - Postfach 1", "Kielholz & Söhne AG", None),
        ("some words", None, None),
    ],
)
def test_the_parties_are_found_by_label_or_letterhead(text: str, seller: str | None, buyer: str | None) -> None:
    assert (read(text).seller, read(text).buyer) == (seller, buyer)


@pytest.mark.parametrize(
    ("text", "type"), [("Credit note 1", "381"), ("Gutschrift", "381"), ("AVOIR", "381"), ("Invoice", "380")]
)
def test_a_credit_note_is_told_from_an_invoice(text: str, type: str) -> None:
    assert read(text).type == type


@pytest.mark.parametrize(
    "unit",
    [
        "\n",
        " ",
        "total\n",
        "total ",
        "total\xa0",
        "invoice no ",
        "invoiceno",
        "1 ",
        "1,234",
        "date ",
        "seller",
        "A",
        "9",
    ],
)
@pytest.mark.parametrize("head", ["total", "invoice no ", "seller"])
def test_endless_texts_cost_no_endless_time(head: str, unit: str) -> None:
    """Eight times the text may cost some twenty times as much, not sixty-four."""

    def cost(length: int) -> float:
        began = time.process_time()
        read(head + unit * (length // len(unit)))
        return time.process_time() - began

    little = min(cost(5_000) for _ in range(3))
    assert cost(40_000) < 24 * little + 0.05


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("20180305", "2018-03-05"),
        ("201803051200", "2018-03-05"),
        (" 2018-03-05T12:00:00Z", "2018-03-05"),
        ("2018-03-05+01:00", "2018-03-05"),
        ("2018-02-30", None),
        ("0000-01-01", None),
        ("5.3.2018", None),
        ("", None),
        (None, None),
    ],
)
def test_dates_of_structured_documents(text: str | None, date: str | None) -> None:
    assert parse_date(text) == date


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("15", "15.00"),
        (" 529.8700 ", "529.87"),
        ("0.125", "0.125"),
        ("-59.5", "-59.50"),
        ("1E5", "100000.00"),
        ("1e-999999", None),
        ("1e999999", None),
        ("1000000000000000", None),
        ("NaN", None),
        ("-Infinity", None),
        ("12,50", None),
        ("", None),
        (None, None),
    ],
)
def test_amounts_of_structured_documents(text: str | None, amount: str | None) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize(("text", "code"), [(" eur ", "EUR"), ("EURO", None), ("€", None), ("", None), (None, None)])
def test_currencies_are_codes_of_three_letters(text: str | None, code: str | None) -> None:
    assert parse_currency(text) == code


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("  a \n b\t", "a b"),
        ("a\0b\x1b", "a b"),
        ("\ud800", None),
        ("x" * 1000, "x" * 1000),
        ("x" * 1001, None),
        (" ", None),
        (None, None),
    ],
)
def test_fields_have_neither_control_characters_nor_any_length(text: str | None, value: str | None) -> None:
    assert clean(text) == value


def received(disposition: str, content: str = "eA==") -> bytes:
    """A mail with one attachment whose headers are not as any library would write them."""
    return (
        f"Message-ID: <1@x>\r\nContent-Type: application/pdf\r\nContent-Disposition: {disposition}\r\n"
        f"Content-Transfer-Encoding: base64\r\n\r\n{content}\r\n"
    ).encode(errors="surrogateescape")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("invoice 17.PDF", "invoice_17.pdf"),
        ("../../etc/passwd", "passwd.pdf"),
        ("..\\..\\windows\\a.pdf", "a.pdf"),
        ("/absolute/a.pdf", "a.pdf"),
        (".hidden.pdf", "hidden.pdf"),
        ("..", "attachment.pdf"),
        ("a\0\r\nb.pdf", "a_b.pdf"),
        ("\u202efdp.exe", "fdp.exe.pdf"),
        ("Rechnung für Jürgen.pdf", "Rechnung_für_Jürgen.pdf"),
        ("", "attachment.pdf"),
    ],
)
def test_the_name_that_a_sender_gives_a_file_becomes_a_plain_one(given: str, name: str) -> None:
    (attachment,) = parse(received(f"attachment; filename*=utf-8''{quote(given, safe='')}")).attachments
    assert attachment.name == name


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=400))
def test_no_file_name_leads_elsewhere_hides_or_is_too_long(given: str) -> None:
    (attachment,) = parse(received(f"attachment; filename*=utf-8''{quote(given, safe='')}")).attachments
    name = attachment.name
    assert not set(name) & set("/\\\0\n\r")
    assert not name.startswith(".")
    assert len(name.encode()) <= 200  # the prefix of the store fits before it, and a file's name has 255


@pytest.mark.parametrize("long", ["漢", "𐍈", "a", "Ü"])
def test_attachments_with_endless_names_can_be_stored(
    long: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTACHMENTS_DIR", str(tmp_path))
    mail = parse(received(f"attachment; filename*=utf-8''{quote(long * 300)}.pdf"))
    assert store.save(mail, mail.attachments[0]).read_bytes() == b"x"


def test_equal_names_of_different_contents_are_different_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTACHMENTS_DIR", str(tmp_path / "new"))
    mails = [parse(received('attachment; filename="a.pdf"', content)) for content in ("eA==", "eQ==", "eQ==")]
    paths = [store.save(mail, mail.attachments[0]) for mail in mails]
    assert paths[0] != paths[1]
    assert paths[1] == paths[2]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {path.name for path in paths}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_pictures_within_the_text_of_a_mail_are_no_attachments_and_unknown_kinds_neither() -> None:
    message = EmailMessage()
    message["Message-ID"] = "<1@x>"
    message.set_content("see above")
    message.add_related(b"logo", "image", "png", cid="<logo>")
    message.add_attachment(b"MZ", maintype="application", subtype="octet-stream", filename="setup.exe")
    message.add_attachment(b"%PDF-", maintype="application", subtype="octet-stream", filename="scan.PDF")
    assert [each.name for each in parse(bytes(message)).attachments] == ["scan.pdf"]


def _many() -> bytes:
    message = EmailMessage()
    for _ in range(MAX_ATTACHMENTS + 1):
        message.add_attachment(b"x", maintype="application", subtype="pdf", filename="a.pdf")
    return bytes(message)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (lambda: b"no header here", "no e-mail"),
        (lambda: b"", "no e-mail"),
        (_many, "101 attachments"),
        (lambda: b"Subject: x\r\n" + b"Content-Type: message/rfc822\r\n\r\n" * 3000, "nested too deep"),
    ],
)
def test_what_is_no_mail_is_unreadable(raw: Callable[[], bytes], why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        parse(raw())


def test_a_mail_without_an_identity_has_the_one_of_its_content() -> None:
    one, other = parse(b"Subject: a\r\n\r\n1"), parse(b"Subject: a\r\n\r\n2")
    assert one.message_id != other.message_id
    assert one.message_id == parse(b"Subject: a\r\n\r\n1").message_id


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("99999999", LONGEST_WAIT),
        ("9" * 400, LONGEST_WAIT),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2065 07:28:00 GMT", LONGEST_WAIT),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("nan", None),
        ("", None),
        (None, None),
    ],
)
def test_a_wait_that_a_service_asks_for(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_a_wait_until_a_date_counts_from_now() -> None:
    wait = retry_after(format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True))
    assert wait is not None
    assert 115 < wait <= 120


@pytest.mark.parametrize(
    ("status", "headers", "outcome"),
    [
        (200, {}, None),
        (204, {}, None),
        (302, {"location": "/elsewhere"}, Discard),
        (400, {}, Discard),
        (404, {}, Discard),
        (408, {}, ServiceError),
        (429, {}, ServiceError),
        (429, {"retry-after": "soon"}, ServiceError),
        (429, {"retry-after": "5"}, RetryAfter),
        (500, {"retry-after": "5"}, ServiceError),
        (503, {"retry-after": "5"}, RetryAfter),
    ],
)
def test_the_status_of_an_answer_decides(status: int, headers: dict[str, str], outcome: type[Exception] | None) -> None:
    response = httpx.Response(status, headers=headers, text="why\nit  is so")
    if outcome is None:
        check(response, "the service")
        return
    with pytest.raises(outcome, match=str(status)) as caught:
        check(response, "the service")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://[::1", "http://a:port/", "file:///etc/hostname", "nothing"])
async def test_a_webhook_that_is_no_address_is_told_from_one_that_is_down(address: str) -> None:
    with pytest.raises(Discard, match="no http or https address"):
        await notify.post(address, {})


@pytest.mark.parametrize("url", ["smtp://[::1", "smtp://host:port", "smtp://host:99999", "smtp://", "http://host"])
async def test_a_mail_server_that_is_no_address_is_told_from_one_that_is_down(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_URL", url)
    with pytest.raises(Discard, match="SMTP_URL is no address such as"):
        await notify.send_mail("a@b.example", "subject", "text")


async def test_services_at_what_is_no_address_are_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API", "MINERU_API"):
        monkeypatch.setenv(f"{name}_BASE", "http://host:port/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("MINERU_API_TOKEN", "token")
    with pytest.raises(Discard, match="OPENAI_API_BASE is no address"):
        await llm.ask("text")
    with pytest.raises(Discard, match="the address of MinerU"):
        await mineru.read_scan(tmp_path / "scan.png")
