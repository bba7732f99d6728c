"""The reader of XML invoices: what it finds in three dialects, and what it does with XML that was made to harm."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

import pytest

from invoices.einvoice import MAX_XML, read_xml
from invoices.invoice import Invoice, Unreadable
from invoices.pdf import embedded_invoice, open_pdf
from invoices.reader import MAX_FILE, kind_of, read_here
from invoices.samples.make import CII, TEXT, UBL, pdf

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
QUICK = 20.0  # seconds of the processor; what grows without end takes minutes
SECRET = "do not print this"

CREDIT_NOTE = f"""{HEAD}
<ubl:CreditNote xmlns:ubl="urn:oasis:names:specification:ubl:schema:xsd:CreditNote-2" xmlns:b="urn:basic" xmlns:a="urn:aggregate">
  <!-- written by hand --><?style none?>
  <b:ID> CN 1 / <![CDATA[<2>]]> </b:ID><b:IssueDate>2026-03-02</b:IssueDate>
  <b:DocumentCurrencyCode>EUR</b:DocumentCurrencyCode>
  <a:AccountingSupplierParty><a:Party><a:PartyName><b:Name>Trading Name</b:Name></a:PartyName></a:Party></a:AccountingSupplierParty>
  <a:AccountingCustomerParty><a:Party><a:Contact><b:Name>A. Person</b:Name></a:Contact></a:Party></a:AccountingCustomerParty>
  <a:LegalMonetaryTotal><b:PayableAmount currencyID="EUR">100.1</b:PayableAmount></a:LegalMonetaryTotal>
</ubl:CreditNote>
"""

ZUGFERD_1 = f"""{HEAD}
<rsm:CrossIndustryDocument xmlns:rsm="urn:ferd:CrossIndustryDocument:invoice:1p0" xmlns:ram="urn:ram:12" xmlns:udt="urn:udt:15">
  <rsm:HeaderExchangedDocument><ram:ID>ZF-77</ram:ID><ram:TypeCode>380</ram:TypeCode>
    <ram:IssueDateTime><udt:DateTimeString format="102">20130614</udt:DateTimeString></ram:IssueDateTime></rsm:HeaderExchangedDocument>
  <rsm:SpecifiedSupplyChainTradeTransaction>
    <ram:ApplicableSupplyChainTradeAgreement>
      <ram:SellerTradeParty><ram:Name>Verkäufer GmbH</ram:Name></ram:SellerTradeParty>
      <ram:BuyerTradeParty><ram:Name>Käufer AG</ram:Name></ram:BuyerTradeParty></ram:ApplicableSupplyChainTradeAgreement>
    <ram:ApplicableSupplyChainTradeSettlement><ram:InvoiceCurrencyCode>EUR</ram:InvoiceCurrencyCode>
      <ram:SpecifiedTradeSettlementMonetarySummation>
        <ram:GrandTotalAmount currencyID="USD">250.00</ram:GrandTotalAmount>
        <ram:GrandTotalAmount currencyID="EUR">88.20</ram:GrandTotalAmount></ram:SpecifiedTradeSettlementMonetarySummation>
    </ram:ApplicableSupplyChainTradeSettlement>
  </rsm:SpecifiedSupplyChainTradeTransaction>
</rsm:CrossIndustryDocument>
"""


def cii(**changed: str) -> str:
    values = {"number": "A-1", "type": "380", "date": "20260611", "seller": "Phare", "currency": "EUR", "total": "342"}
    return CII.format(**{**values, **changed})


def invoice(number: str, doctype: str = "") -> bytes:
    return f"{HEAD}{doctype}<Invoice><ID>{number}</ID></Invoice>".encode()


def test_a_ubl_invoice() -> None:
    assert read_xml(UBL.encode()) == Invoice(
        source="ubl",
        number="NB-2026-0117",
        date="2026-03-02",
        currency="EUR",
        seller="Nordbrise Segel GmbH",
        buyer="Hafenkontor Lübben KG",
        total="1428.00",
        type="380",
    )


def test_a_ubl_credit_note_with_the_names_and_sums_that_come_second() -> None:
    assert read_xml(CREDIT_NOTE.encode()) == Invoice(
        source="ubl",
        number="CN 1 / <2>",
        date="2026-03-02",
        currency="EUR",
        seller="Trading Name",
        buyer="A. Person",
        total="100.10",
        type="381",
    )


def test_a_cii_invoice() -> None:
    assert read_xml(cii(seller="Kielholz &amp; Söhne AG", type="381").encode()) == Invoice(
        source="cii",
        number="A-1",
        date="2026-06-11",
        currency="EUR",
        seller="Kielholz & Söhne AG",
        buyer="Hafenkontor Lübben KG",
        total="342.00",
        type="381",
    )


def test_an_invoice_of_zugferd_1_and_the_total_in_its_own_currency() -> None:
    assert read_xml(ZUGFERD_1.encode()) == Invoice(
        source="cii",
        number="ZF-77",
        date="2013-06-14",
        currency="EUR",
        seller="Verkäufer GmbH",
        buyer="Käufer AG",
        total="88.20",
        type="380",
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_the_declared_encoding_counts(encoding: str) -> None:
    declared = encoding.removesuffix("-sig")
    assert read_xml(UBL.replace("UTF-8", declared).encode(encoding)).buyer == "Hafenkontor Lübben KG"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("NB-2026-0117", " "), "number"),
        (("NB-2026-0117", "9" * 5000), "number"),
        (("2026-03-02", "2026-02-30"), "date"),
        (("2026-03-02", "yesterday"), "date"),
        ((">EUR<", ">Euro<"), "currency"),
        (("Nordbrise Segel GmbH", ""), "seller"),
        (("1428.00", "1.428,00"), "total"),
        (("1428.00", "NaN"), "total"),
        (("1428.00", "1e-999999"), "total"),
    ],
)
def test_a_value_that_is_none_is_missing_and_nothing_is_guessed(change: tuple[str, str], field: str) -> None:
    assert read_xml(UBL.replace(*change).encode()).missing() == [field]


def test_what_is_missing_is_taken_from_another_reading_and_the_rest_is_kept() -> None:
    one, other = (
        Invoice("pdf-text", number="1", total="2.00"),
        Invoice("llm", number="9", seller="S", date="2026-01-01"),
    )
    assert one.completed_by(other) == Invoice("llm", number="1", date="2026-01-01", seller="S", total="2.00")
    assert one.completed_by(Invoice("llm", number="9")) is one
    assert one.missing() == ["date", "currency", "seller"]


def _laughs() -> bytes:
    entities = "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(12))
    return invoice("&m;", f'<!DOCTYPE l [<!ENTITY a "haha haha ">{entities}]>')


def _blowup() -> bytes:
    return invoice("&a;" * 50_000, f'<!DOCTYPE l [<!ENTITY a "{"a" * 50_000}">]>')


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "billion laughs": (_laughs, "entit|document type"),
    "quadratic blow-up": (_blowup, "entit|document type"),
    "an entity that is never used": (lambda: invoice("1", '<!DOCTYPE l [<!ENTITY a "x">]>'), "document type"),
    "entities that contain each other": (
        lambda: invoice("&a;", '<!DOCTYPE l [<!ENTITY a "&b;"><!ENTITY b "&a;">]>'),
        "entit|document type",
    ),
    "deep nesting": (lambda: b"<Invoice>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</Invoice>", "depth"),
    "deep nesting without an end": (lambda: b"<a>" * 1_000_000, "depth"),
    "19 MB of text": (lambda: invoice("A" * 19_000_000), "too long"),
    "20 MB of text": (lambda: invoice("A" * MAX_XML), "bytes, the limit is"),
    "an endless name": (lambda: b"<" + b"a" * 1_000_000 + b"/>", "broken|no invoice"),
    "an endless attribute": (lambda: b'<Invoice a="' + b"a" * 15_000_000 + b'"/>', "broken"),
    "truncated": (lambda: UBL.encode()[:-30], "broken"),
    "two roots": (lambda: invoice("1") + b"<Invoice/>", "broken"),
    "an unknown entity": (lambda: invoice("&nbsp;"), "broken"),
    "an unknown prefix": (lambda: b"<x:Invoice/>", "no invoice|broken"),
    "an unknown encoding": (lambda: b'<?xml version="1.0" encoding="klingon"?><Invoice/>', "encoding"),
    "bytes that are no UTF-8": (lambda: invoice("?").replace(b"?</ID>", b"\xff\xfe</ID>"), "broken"),
    "a NUL": (lambda: invoice("a\0b"), "broken"),
    "not XML": (lambda: b"Dear all, please find our invoice attached.", "broken"),
    "nothing": (lambda: b"", "broken"),
    "white space": (lambda: b" \n\t " * 100_000, "broken"),
    "a page of the web": (lambda: b"<html><body>Invoice</body></html>", "its root element is html"),
    "another document of UBL": (lambda: b'<Order xmlns="urn:oasis"><ID>1</ID></Order>', "its root element is Order"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_xml_is_unreadable_at_once_and_the_reason_is_one_short_line(kind: str) -> None:
    content, why = HOSTILE[kind]
    data = content()
    began = time.process_time()
    with pytest.raises(Unreadable, match=why) as caught:
        read_xml(data)
    assert time.process_time() - began < QUICK
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


DISCLOSURES = {
    "entity": '<!DOCTYPE l [<!ENTITY a SYSTEM "{address}">]>',
    "public entity": '<!DOCTYPE l [<!ENTITY a PUBLIC "x" "{address}">]>',
    "parameter entity": '<!DOCTYPE l [<!ENTITY % p SYSTEM "{address}"> %p;]>',
    "parameter entity within an entity": (
        '<!DOCTYPE l [<!ENTITY % f SYSTEM "{address}"><!ENTITY % p "<!ENTITY a SYSTEM \'file:///%f;\'>"> %p;]>'
    ),
    "document type": '<!DOCTYPE l SYSTEM "{address}">',
}


@pytest.mark.parametrize("kind", DISCLOSURES)
@pytest.mark.parametrize("address", ["file:///etc/passwd", "own file", "http://127.0.0.1:9/x"])
def test_no_file_and_no_address_is_read_on_behalf_of_xml(kind: str, address: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    where = f"file://{tmp_path}/secret" if address == "own file" else address
    for used in ("1", "&a;"):
        with pytest.raises(Unreadable, match=r"document type|broken") as caught:
            read_xml(invoice(used, DISCLOSURES[kind].replace("{address}", where)))
        assert SECRET not in str(caught.value)
        assert "root:" not in str(caught.value)


def test_inclusions_and_style_sheets_are_text_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    included = (
        f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file://{tmp_path}/secret" parse="text"/>'
        f'<?xml-stylesheet href="file://{tmp_path}/secret"?>'
    )
    assert read_xml(invoice(f"7{included}")).number == "7"


def test_megabytes_within_a_field_are_no_value() -> None:
    began = time.process_time()
    assert read_xml(invoice("A" * 9_000_000)).number is None
    assert read_xml(invoice("<b>A</b>" * 200_000)).number is None
    assert time.process_time() - began < QUICK


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"<Invoice/>", "xml"),
        (b"\xef\xbb\xbf\r\n <?xml?>", "xml"),
        ("<Invoice/>".encode("utf-16"), "xml"),
        ("<?xml?>".encode("utf-16-be"), "xml"),
        (b"%PDF-1.4", "pdf"),
        (b"junk before it\n%PDF-1.4", "pdf"),
        (b"\xff\xd8\xff\xe0", "picture"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"MM\0*", "picture"),
        (b"RIFF\0\0\0\0WEBP", "picture"),
        (b"MZ\x90", None),
        (b"PK\x03\x04", None),
        (b"", None),
    ],
)
def test_the_first_bytes_say_what_a_file_is_whatever_its_name(data: bytes, kind: str | None) -> None:
    assert kind_of(data) == kind


def test_the_invoice_within_a_pdf_counts_over_what_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf(TEXT, cii().encode()))
    reading = read_here(path)
    assert (reading.invoice.source, reading.invoice.number, reading.text) == ("pdf-xml", "A-1", "")


def test_a_broken_invoice_within_a_pdf_is_not_passed_over() -> None:
    with pytest.raises(Unreadable, match="the invoice in the PDF cannot be read: the XML is broken"):
        embedded_invoice(open_pdf(pdf(TEXT, cii().encode()[:-20])))


def test_a_pdf_without_an_attachment_has_no_embedded_invoice() -> None:
    assert embedded_invoice(open_pdf(pdf(TEXT))) is None


def test_an_attachment_of_a_pdf_that_is_no_xml_is_passed_over() -> None:
    from pypdf import PdfWriter

    writer = PdfWriter(io.BytesIO(pdf(TEXT)))
    writer.add_attachment("terms.txt", b"our terms")
    writer.add_attachment("invoice.xml", UBL.encode())
    written = io.BytesIO()
    writer.write(written)
    found = embedded_invoice(open_pdf(written.getvalue()))
    assert found is not None
    assert (found.source, found.number) == ("pdf-xml", "NB-2026-0117")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", "neither XML"),
        (b"PK\x03\x04", "neither XML"),
        (b"<" * (MAX_FILE + 1), "the limit"),
    ],
)
def test_files_that_are_no_document(content: bytes | None, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Unreadable, match=why):
        read_here(path)
    with pytest.raises(Unreadable, match="Is a directory"):
        read_here(tmp_path)
