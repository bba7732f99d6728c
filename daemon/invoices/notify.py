"""Notifications: e-mail over SMTP, and a webhook over HTTP."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from invoices.http import TIMEOUT, ServiceError, check, trust
from workerd import Discard

if TYPE_CHECKING:
    from email.message import EmailMessage


async def send_mail(to: str, subject: str, text: str) -> None:
    """Send over SMTP_URL: smtp://user:password@host:port, with ?starttls=1; smtps:// for TLS from the first byte.

    Raises Discard when it is not configured or the server refuses for good, ServiceError when it may work later.
    """
    import aiosmtplib

    given = os.environ.get("SMTP_URL")
    if not given:
        raise Discard("no mail can be sent: SMTP_URL is not set")
    try:
        url = urlsplit(given)
        known = url.scheme in ("smtp", "smtps") and url.hostname and url.port != 0
    except ValueError:  # a port or an address within brackets that is none
        known = False
    if not known:
        raise Discard("SMTP_URL is no address such as smtp://user:password@host:587?starttls=1")
    options = parse_qs(url.query, keep_blank_values=True)
    sender = options.get(
        "from", [unquote(url.username or "") if "@" in unquote(url.username or "") else f"invoices@{url.hostname}"]
    )[0]
    try:
        await aiosmtplib.send(
            _message(sender, to, subject, text),
            hostname=url.hostname,
            port=url.port,
            use_tls=url.scheme == "smtps",
            start_tls=True if "starttls" in options else None if url.scheme == "smtp" else False,
            username=unquote(url.username) if url.username else None,
            password=unquote(url.password) if url.password else None,
            timeout=TIMEOUT,
        )
    except aiosmtplib.SMTPResponseException as error:
        if error.code >= 500:
            raise Discard(f"the mail server refused: {error.code} {error.message}") from error
        raise ServiceError(f"the mail server cannot take it now: {error.code} {error.message}") from error
    except aiosmtplib.SMTPRecipientsRefused as error:
        if all(refused.code < 500 for refused in error.recipients):  # greylisting: it takes the mail a little later
            raise ServiceError(f"the mail server cannot take mail for {to} now") from error
        raise Discard(f"the mail server refused the recipient {to}") from error
    except (aiosmtplib.SMTPException, OSError) as error:
        raise ServiceError(f"the mail server does not answer: {error}") from error


async def post(address: str, content: dict[str, Any]) -> None:
    """Post JSON to a webhook. Raises RetryAfter, ServiceError or Discard, by its answer."""
    import httpx

    try:
        if httpx.URL(address).scheme not in ("http", "https"):
            raise Discard("the webhook is no http or https address")
        async with httpx.AsyncClient(timeout=TIMEOUT, verify=trust()) as client:
            response = await client.post(address, json=content)
    except httpx.InvalidURL as error:
        raise Discard(f"the webhook is no http or https address: {error}") from error
    except httpx.HTTPError as error:
        raise ServiceError(f"the webhook does not answer: {type(error).__name__} {error}".strip()) from error
    check(response, "the webhook")


def _message(sender: str, to: str, subject: str, text: str) -> EmailMessage:
    from email.message import EmailMessage
    from email.utils import formatdate, make_msgid

    message = EmailMessage()
    try:
        message["From"], message["To"], message["Subject"] = sender, to, subject
    except ValueError as error:
        raise Discard(f"the mail cannot be written: {error}") from error
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid()
    message.set_content(text)
    return message
