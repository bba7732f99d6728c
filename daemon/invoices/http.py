"""Calls to outside services: what to do when they do not answer as they should."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from workerd import Discard, RetryAfter

if TYPE_CHECKING:
    import ssl

    import httpx

TIMEOUT = 60.0  # seconds
LONGEST_WAIT = 3600.0  # seconds that a service may ask us to wait


class ServiceError(Exception):
    """An outside service failed; the job is tried again."""


@cache
def trust() -> ssl.SSLContext:
    """The certificates that are trusted, read once: for each client anew they would hold up the loop for 50 ms a call."""
    import httpx

    return httpx.create_ssl_context()


def check(response: httpx.Response, service: str) -> None:
    """Return when the answer is good.

    Raises RetryAfter when the service says when, ServiceError when it may work later, Discard when it will not.
    """
    status = response.status_code
    if status < 300:
        return
    wait = retry_after(response.headers.get("retry-after"))
    if status in (429, 503) and wait is not None:
        raise RetryAfter(wait, f"{service} asks to wait {wait:.0f} s (status {status})")
    if status in (408, 425, 429) or status >= 500:
        raise ServiceError(f"{service} answered {status}")
    raise Discard(f"{service} refused with status {status}: {' '.join(response.text.split())[:200]}")


def retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    from email.utils import parsedate_to_datetime

    try:
        seconds = (
            float(header)
            if header.strip().isdigit()
            else (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        )
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT)
