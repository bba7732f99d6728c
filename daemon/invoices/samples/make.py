"""Makes the sample mailbox: `python -m invoices.samples.make`. All companies are invented."""

from __future__ import annotations

import io
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

UBL = """<?xml version="1.0" encoding="UTF-8"?>
<Invoice xmlns="urn:oasis:names:specification:ubl:schema:xsd:Invoice-2" xmlns:cac="urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2"
  xmlns:cbc="urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2">
  <cbc:ID>NB-2026-0117</cbc:ID><cbc:IssueDate>2026-03-02</cbc:IssueDate><cbc:InvoiceTypeCode>380</cbc:InvoiceTypeCode>
  <cbc:DocumentCurrencyCode>EUR</cbc:DocumentCurrencyCode>
  <cac:AccountingSupplierParty><cac:Party><cac:PartyLegalEntity><cbc:RegistrationName>Nordbrise Segel GmbH</cbc:RegistrationName></cac:PartyLegalEntity></cac:Party></cac:AccountingSupplierParty>
  <cac:AccountingCustomerParty><cac:Party><cac:PartyLegalEntity><cbc:RegistrationName>Hafenkontor Lübben KG</cbc:RegistrationName></cac:PartyLegalEntity></cac:Party></cac:AccountingCustomerParty>
  <cac:LegalMonetaryTotal><cbc:TaxExclusiveAmount currencyID="EUR">1200.00</cbc:TaxExclusiveAmount><cbc:TaxInclusiveAmount currencyID="EUR">1428.00</cbc:TaxInclusiveAmount>
  <cbc:PayableAmount currencyID="EUR">1428.00</cbc:PayableAmount></cac:LegalMonetaryTotal>
</Invoice>
"""
CII = """<?xml version="1.0" encoding="UTF-8"?>
<rsm:CrossIndustryInvoice xmlns:rsm="urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100"
  xmlns:ram="urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100" xmlns:udt="urn:un:unece:uncefact:data:standard:UnqualifiedDataType:100">
  <rsm:ExchangedDocument><ram:ID>{number}</ram:ID><ram:TypeCode>{type}</ram:TypeCode>
    <ram:IssueDateTime><udt:DateTimeString format="102">{date}</udt:DateTimeString></ram:IssueDateTime></rsm:ExchangedDocument>
  <rsm:SupplyChainTradeTransaction>
    <ram:ApplicableHeaderTradeAgreement><ram:SellerTradeParty><ram:Name>{seller}</ram:Name></ram:SellerTradeParty>
      <ram:BuyerTradeParty><ram:Name>Hafenkontor Lübben KG</ram:Name></ram:BuyerTradeParty></ram:ApplicableHeaderTradeAgreement>
    <ram:ApplicableHeaderTradeDelivery/>
    <ram:ApplicableHeaderTradeSettlement><ram:InvoiceCurrencyCode>{currency}</ram:InvoiceCurrencyCode>
      <ram:SpecifiedTradeSettlementHeaderMonetarySummation><ram:GrandTotalAmount>{total}</ram:GrandTotalAmount><ram:DuePayableAmount>{total}</ram:DuePayableAmount>
      </ram:SpecifiedTradeSettlementHeaderMonetarySummation></ram:ApplicableHeaderTradeSettlement>
  </rsm:SupplyChainTradeTransaction>
</rsm:CrossIndustryInvoice>
"""
TEXT = (
    "Brightwater Tools Ltd, 12 Quay Street, Bristol",
    "",
    "INVOICE",
    "Invoice number: BT-4471",
    "Invoice date: 14 April 2026",
    "Bill to: Hafenkontor Lübben KG",
    "",
    "2 x rigging knife                      GBP 48.00",
    "1 x splicing kit                       GBP 31.50",
    "Subtotal                               GBP 79.50",
    "VAT 20 %                               GBP 15.90",
    "Total                                  GBP 95.40",
)


def pdf(lines: tuple[str, ...], attachment: bytes | None = None) -> bytes:
    """A page with these lines, and an embedded XML invoice if one is given."""
    from pypdf import PdfWriter
    from reportlab.pdfgen.canvas import Canvas

    page = io.BytesIO()
    canvas = Canvas(page, pagesize=(595, 842), invariant=True)
    for place, line in enumerate(lines):
        canvas.drawString(60, 780 - 18 * place, line)
    canvas.save()
    if attachment is None:
        return page.getvalue()
    writer = PdfWriter(io.BytesIO(page.getvalue()))
    writer.add_attachment("factur-x.xml", attachment)
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def mail(number: int, sender: str, subject: str, text: str, *attachments: tuple[str, str, bytes]) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = sender, "invoices@hafenkontor.example", subject
    message["Date"] = f"Mon, {number:02} Jun 2026 09:00:00 +0200"
    message["Message-ID"] = f"<sample-{number}@hafenkontor.example>"
    message.set_content(text)
    for name, kind, content in attachments:
        message.add_attachment(content, maintype="application", subtype=kind, filename=name)
    message.set_boundary(f"sample-{number}")
    return message


def main() -> None:
    """Write the mails beside this file."""
    credit = CII.format(
        number="GS-88", type="381", date="20260520", seller="Kielholz &amp; Söhne AG", currency="EUR", total="59.50"
    ).encode()
    embedded = CII.format(
        number="2026/0042", type="380", date="20260611", seller="Atelier du Phare SARL", currency="EUR", total="342.00"
    ).encode()
    mails = {
        "1-ubl": mail(
            1,
            "billing@nordbrise.example",
            "Rechnung NB-2026-0117",
            "Anbei die Rechnung.",
            ("NB-2026-0117.xml", "xml", UBL.encode()),
        ),
        "2-cii-credit-note": mail(
            2, "buchhaltung@kielholz.example", "Gutschrift GS-88", "Anbei die Gutschrift.", ("GS-88.xml", "xml", credit)
        ),
        "3-factur-x": mail(
            3,
            "compta@phare.example",
            "Facture 2026/0042",
            "Veuillez trouver la facture.",
            (
                "facture.pdf",
                "pdf",
                pdf(("Facture 2026/0042", "Atelier du Phare SARL", "Total TTC 342,00 EUR"), embedded),
            ),
        ),
        "4-text-pdf": mail(
            4,
            "accounts@brightwater.example",
            "Invoice BT-4471",
            "Please find our invoice.",
            ("BT-4471.pdf", "pdf", pdf(TEXT)),
        ),
        "5-sent-twice": mail(
            1,
            "billing@nordbrise.example",
            "Rechnung NB-2026-0117",
            "Anbei die Rechnung.",
            ("NB-2026-0117.xml", "xml", UBL.encode()),
        ),
    }
    for name, message in mails.items():
        Path(__file__).with_name(f"{name}.eml").write_bytes(bytes(message))


if __name__ == "__main__":
    main()
