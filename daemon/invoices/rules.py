"""Rules that find the fields of an invoice in its text: English, German and French."""

from __future__ import annotations

import re

from invoices.invoice import Invoice, clean, make_date, parse_amount

ITSELF = r"(?=[A-Z/._-]{0,63}\d)([A-Z0-9][A-Z0-9/._-]{0,63})(?![A-Z0-9/._-])"  # bounded: an endless word costs no time
NUMBER = re.compile(
    r"(?:invoice|rechnungs?|facture|credit\s*note|gutschrifts?|avoir|bill)[\s-]*"
    rf"(?:number|no\.?|nr\.?|num(?:ber|mer|éro)|id|#|n[°o]\.?|№)\s*[:.#]?\s*{ITSELF}",
    re.IGNORECASE,
)
LONE_NUMBER = re.compile(
    rf"^ *(?:invoice|rechnung|facture|credit note|gutschrift|avoir)\s+#?\s*{ITSELF}\s*$",
    re.IGNORECASE | re.MULTILINE,
)
MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan januar janvier janv jänner",
            "february feb februar février févr fevrier",
            "march mar märz mrz maerz mars",
            "april apr avril avr",
            "may mai",
            "june jun juni juin",
            "july jul juli juillet juil",
            "august aug août aout",
            "september sep sept septembre",
            "october oct oktober okt octobre",
            "november nov novembre",
            "december dec dezember dez décembre déc",
        ),
        1,
    )
    for name in names.split()
}
DATE = (
    r"(?P<iso>\d{4}-\d{2}-\d{2})|(?P<d>\d{1,2})[./](?P<m>\d{1,2})[./](?P<y>\d{4})|(?P<d2>\d{1,2})\.?\s+(?P<name>[^\W\d_]{3,9})\.?\s+(?P<y2>\d{4})"
    r"|(?P<name3>[^\W\d_]{3,9})\.?\s+(?P<d3>\d{1,2}),?\s+(?P<y3>\d{4})"
)
LABELLED_DATES = tuple(  # the more telling label first: a lone date may be the one it is due
    re.compile(rf"(?:{label})\s*[:.]?\s*(?:{DATE})", re.IGNORECASE)
    for label in (
        r"invoice\s*date|date\s*of\s*(?:issue|invoice)|issue\s*date|rechnungsdatum|ausstellungsdatum|belegdatum|date\s*de\s*(?:la\s*)?facture|date\s*d['’]émission|"
        r"date\s*de\s*facturation|gutschriftsdatum",
        r"(?<!due )(?<!delivery )\bdate|\bdatum|\ble",
    )
)
ANY_DATE = re.compile(DATE)
AMOUNT = r"(-?\d{1,3}(?:[ .,'’\u00a0\u202f]\d{3})*(?:[.,]\d{2})|-?\d+(?:[.,]\d{2}))(?![.,]?\d|\s*%)"
MONEY = r"(?:EUR|USD|GBP|CHF|[€$£])?"
TOTALS = tuple(  # the more telling label first
    re.compile(rf"(?:{label})[^\n\d-]{{0,40}}?\s*{MONEY}\s*{AMOUNT}", re.IGNORECASE)
    for label in (
        r"grand\s*total|total\s*(?:amount\s*)?(?:incl|including|inc\.)[^\n\d]{0,20}|gesamtbetrag|rechnungsbetrag|bruttobetrag|gesamtsumme|endbetrag|total\s*t\.?t\.?c\.?|montant\s*t\.?t\.?c\.?",
        r"amount\s*due|total\s*due|balance\s*due|zu\s*zahlen(?:der\s*betrag)?|zahlbetrag|net\s*à\s*payer|montant\s*(?:total|dû)",
        r"(?<!sub)(?<!sub )(?<!sub-)(?<!net )\btotal|\bgesamt|\bsumme|brutto",
    )
)
CURRENCIES = (
    ("EUR", r"\bEUR\b|€"),
    ("USD", r"\bUSD\b|US\$|\$"),
    ("GBP", r"\bGBP\b|£"),
    ("CHF", r"\bCHF\b|\bSFr\b"),
    ("PLN", r"\bPLN\b"),
    ("SEK", r"\bSEK\b"),
)
SELLER = re.compile(
    r"^ *(?:seller|supplier|from|vendor|verkäufer|lieferant|rechnungssteller|vendeur|fournisseur|émetteur)\s*:\s*(.+)$",
    re.IGNORECASE | re.MULTILINE,
)
BUYER = re.compile(
    r"^ *(?:buyer|customer|bill(?:ed)?\s*to|invoice\s*to|to|kunde|käufer|rechnungsempfänger|client|acheteur|destinataire)\s*:\s*(.+)$",
    re.IGNORECASE | re.MULTILINE,
)
COMPANY = re.compile(
    r"\b(?:GmbH|AG|KG|UG|e\.K\.|OHG|Ltd\.?|Limited|LLC|Inc\.?|PLC|SARL|S\.A\.R\.L\.|SAS|SA|S\.A\.|B\.V\.|N\.V\.|S\.p\.A\.|Oy|AB|Corp\.?)(?:\W|$)"
)
CREDIT = re.compile(r"\b(?:credit\s*note|gutschrift|avoir)\b", re.IGNORECASE)


def read_text(text: str, source: str) -> Invoice:
    """The fields that the rules find in a text; those they do not find are None."""
    text = _tidy(text)
    number = NUMBER.search(text) or LONE_NUMBER.search(text)
    return Invoice(
        source=source,
        number=number[1].rstrip(".-_/") if number else None,
        date=_date(text),
        currency=_currency(text),
        seller=_seller(text),
        buyer=clean(match[1]) if (match := BUYER.search(text)) else None,
        total=_total(text),
        type="381" if CREDIT.search(text) else "380",
    )


def _tidy(text: str) -> str:
    """The lines that say something, their gaps shortened (two blanks stay a gap): endless white space would cost the patterns hours."""
    lines = (re.sub(r"\s{2,}", "  ", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _date(text: str) -> str | None:
    match = next((m for pattern in (*LABELLED_DATES, ANY_DATE) if (m := pattern.search(text))), None)
    if match is None:
        return None
    part = match.groupdict()
    if part["iso"]:
        return make_date(*part["iso"].split("-"))
    if part["y"]:
        return make_date(part["y"], part["m"], part["d"]) or make_date(part["y"], part["d"], part["m"])
    name, day, year = (
        (part["name"], part["d2"], part["y2"]) if part["name"] else (part["name3"], part["d3"], part["y3"])
    )
    month = MONTHS.get(name.lower())
    return make_date(year, str(month), day) if month else None


def _total(text: str) -> str | None:
    """The largest amount behind the most telling label: a sum is not smaller than its parts."""
    for label in TOTALS:
        amounts = [amount for match in label.finditer(text) if (amount := _amount(match[match.lastindex or 1]))]
        if amounts:
            return max(amounts, key=float)
    return None


def _amount(text: str) -> str | None:
    """1.234,56 and 1,234.56 and 1 234,56: the last mark separates the cents."""
    digits = re.sub(r"[^\d.,-]", "", text)
    whole, mark, cents = digits[:-3], digits[-3:-2], digits[-2:]
    if mark not in (".", ","):
        return None
    return parse_amount(f"{re.sub(r'[.,]', '', whole)}.{cents}")


def _currency(text: str) -> str | None:
    """The one that is named most often."""
    counts = {code: len(re.findall(pattern, text)) for code, pattern in CURRENCIES}
    best = max(counts, key=lambda code: counts[code])
    return best if counts[best] else None


def _seller(text: str) -> str | None:
    """What is labelled so, else the first line with the form of a company, which letterheads begin with."""
    labelled = SELLER.search(text)
    if labelled:
        return clean(labelled[1])
    lines = [line for line in text.splitlines()[:40] if COMPANY.search(line)]
    return clean(re.split(r"\s[-–·|•]\s|,\s", lines[0])[0]) if lines else None
