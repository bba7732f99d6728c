"""Structured invoices: UBL (Invoice, CreditNote) and CII (ZUGFeRD 1, Factur-X, XRechnung), found by their root element."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoices.invoice import Invoice, Unreadable, clean, parse_amount, parse_currency, parse_date

if TYPE_CHECKING:
    from lxml.etree import _Element

MAX_XML = 20_000_000  # bytes
UBL_ROOTS = ("Invoice", "CreditNote")
CII_ROOTS = ("CrossIndustryInvoice", "CrossIndustryDocument")


def read_xml(data: bytes) -> Invoice:
    """Read an XML invoice. Raises Unreadable for anything else, and for XML that defines entities."""
    root = _parse(data)
    kind = _local(root)
    if kind in UBL_ROOTS:
        return _read_ubl(root)
    if kind in CII_ROOTS:
        return _read_cii(root)
    raise Unreadable(
        f"the XML is no invoice: its root element is {kind[:60]}, expected is one of {', '.join(UBL_ROOTS + CII_ROOTS)}"
    )


def _parse(data: bytes) -> _Element:
    from lxml import etree

    if len(data) > MAX_XML:
        raise Unreadable(f"the XML has {len(data):,} bytes, the limit is {MAX_XML:,}")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data.lstrip(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise Unreadable(f"the XML is broken: {error}") from error
    # an invoice needs no document type; entities are how XML bombs and file disclosure begin
    if root.getroottree().docinfo.internalDTD is not None:
        raise Unreadable("the XML has a document type declaration, which invoices must not have: refused")
    return root


def _read_ubl(root: _Element) -> Invoice:
    return Invoice(
        source="ubl",
        number=clean(_text(root, "ID")),
        date=parse_date(_text(root, "IssueDate")),
        currency=parse_currency(_text(root, "DocumentCurrencyCode")),
        seller=_ubl_party(root, "AccountingSupplierParty"),
        buyer=_ubl_party(root, "AccountingCustomerParty"),
        total=parse_amount(
            _text(root, "LegalMonetaryTotal/TaxInclusiveAmount") or _text(root, "LegalMonetaryTotal/PayableAmount")
        ),
        type=clean(_text(root, "InvoiceTypeCode") or _text(root, "CreditNoteTypeCode"))
        or ("381" if _local(root) == "CreditNote" else "380"),
    )


def _ubl_party(root: _Element, role: str) -> str | None:
    """The registered name, else the trading name, else the contact's."""
    paths = ("PartyLegalEntity/RegistrationName", "PartyName/Name", "Contact/Name")
    return next((name for path in paths if (name := clean(_text(root, f"{role}/Party/{path}")))), None)


def _read_cii(root: _Element) -> Invoice:
    """Both generations: elements of ZUGFeRD 1 have other names on the way, the same at the end."""
    header = _first(root, "ExchangedDocument", "HeaderExchangedDocument")
    trade = _first(root, "SupplyChainTradeTransaction", "SpecifiedSupplyChainTradeTransaction")
    agreement = _first(trade, "ApplicableHeaderTradeAgreement", "ApplicableSupplyChainTradeAgreement")
    settlement = _first(trade, "ApplicableHeaderTradeSettlement", "ApplicableSupplyChainTradeSettlement")
    sums = _first(
        settlement, "SpecifiedTradeSettlementHeaderMonetarySummation", "SpecifiedTradeSettlementMonetarySummation"
    )
    currency = parse_currency(_text(settlement, "InvoiceCurrencyCode"))
    return Invoice(
        source="cii",
        number=clean(_text(header, "ID")),
        date=parse_date(_text(header, "IssueDateTime/DateTimeString") or _text(header, "IssueDateTime/DateTime")),
        currency=currency,
        seller=_cii_party(agreement, "SellerTradeParty"),
        buyer=_cii_party(agreement, "BuyerTradeParty"),
        total=parse_amount(_amount(sums, "GrandTotalAmount", currency) or _amount(sums, "DuePayableAmount", currency)),
        type=clean(_text(header, "TypeCode")),
    )


def _cii_party(agreement: _Element | None, role: str) -> str | None:
    return clean(_text(agreement, f"{role}/Name")) or clean(
        _text(agreement, f"{role}/SpecifiedLegalOrganization/TradingBusinessName")
    )


def _amount(sums: _Element | None, name: str, currency: str | None) -> str | None:
    """The amount in the invoice's currency where there are several."""
    amounts = [] if sums is None else [e for e in sums if _local(e) == name]
    fitting = [e for e in amounts if e.get("currencyID") == currency] or amounts
    return str(fitting[0].text or "") if fitting else None


def _first(parent: _Element | None, *names: str) -> _Element | None:
    if parent is None:
        return None
    return next((child for name in names for child in parent if _local(child) == name), None)


def _text(parent: _Element | None, path: str) -> str | None:
    """The text at a path of local names: prefixes and versions of namespaces differ between senders."""
    element = parent
    for name in path.split("/"):
        element = _first(element, name)
    return None if element is None else "".join(str(part) for part in element.itertext())


def _local(element: _Element) -> str:
    return str(element.tag).rpartition("}")[2]
