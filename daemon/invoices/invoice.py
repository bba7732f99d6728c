"""The fields of an invoice, and how their values are written."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from datetime import date
from decimal import Decimal, InvalidOperation

REQUIRED = ("number", "date", "currency", "seller", "total")
FIELDS = ("number", "date", "currency", "seller", "buyer", "total", "type")
LONGEST = 1000  # characters of a field
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")  # PostgreSQL takes neither NUL nor half a surrogate pair


class Unreadable(Exception):
    """A document that cannot be read, and why, in one line; trying again would not help."""

    def __init__(self, why: str) -> None:
        super().__init__(" ".join(why.split())[:1000])


@dataclass(frozen=True)
class Invoice:
    """What is read; None: not found. `date` is YYYY-MM-DD, `total` a decimal string including tax, `type` a code of UNTDID 1001."""

    source: str
    number: str | None = None
    date: str | None = None
    currency: str | None = None
    seller: str | None = None
    buyer: str | None = None
    total: str | None = None
    type: str | None = None

    def missing(self) -> list[str]:
        """The required fields that were not found."""
        return [name for name in REQUIRED if getattr(self, name) is None]

    def completed_by(self, other: Invoice) -> Invoice:
        """This invoice with the fields it lacks taken from another one, whose source it then names."""
        found = {
            name: getattr(other, name)
            for name in FIELDS
            if getattr(self, name) is None and getattr(other, name) is not None
        }
        return replace(self, **found, source=other.source) if found else self

    def as_dict(self) -> dict[str, str | None]:
        return asdict(self)


def clean(text: str | None) -> str | None:
    """Text without surplus white space and control characters; None when nothing is left, or more than a field can be."""
    plain = " ".join(CONTROL.sub(" ", text).split()) if text else ""
    return plain if 0 < len(plain) <= LONGEST else None


def parse_date(text: str | None) -> str | None:
    """YYYY-MM-DD of 20180305, 201803051200, 2018-03-05 or 2018-03-05T12:00:00Z; None when it is no day."""
    match = re.match(r"\s*(\d{4})-?(\d{2})-?(\d{2})", text or "")
    return make_date(match[1], match[2], match[3]) if match else None


def make_date(year: str, month: str, day: str) -> str | None:
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return None


def parse_amount(text: str | None) -> str | None:
    """A plain decimal number with at least two places: `15` is 15.00, `529.8700` is 529.87; None when it is none."""
    try:
        value = Decimal((text or "").strip())
    except InvalidOperation:
        return None
    if not value.is_finite() or abs(value) >= Decimal(10) ** 15 or value.adjusted() < -10:
        return None
    cents = value.quantize(Decimal("0.01"))
    return f"{cents if cents == value else value.normalize():f}"


def parse_currency(text: str | None) -> str | None:
    """A currency code of three letters."""
    code = (text or "").strip().upper()
    return code if re.fullmatch(r"[A-Z]{3}", code) else None
