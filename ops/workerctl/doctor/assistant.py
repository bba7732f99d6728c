"""The settings of the invoice assistant, where its tasks are run: by their form alone, nobody is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from workerctl.doctor.finding import Finding, ok, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workerd.settings import Settings

TASKS = "invoices"
_KEYS = ("openai_api_key", "mineru_api_token")
_ADDRESSES = {
    "openai_api_base": (("http", "https"), "https://api.example/v1"),
    "webhook_url": (("http", "https"), "https://chat.example/hook"),
    "smtp_url": (("smtp", "smtps"), "smtp://user:password@mail.example:587"),
}


def assistant(settings: Settings) -> list[Finding]:
    """Nothing where its tasks are not among those of the daemon."""
    if not any(each.partition(".")[0] == TASKS for each in settings.tasks):
        return []
    return list(_mistakes(settings)) or [ok("assistant", _configured(settings))]


def _mistakes(settings: Settings) -> Iterator[Finding]:
    for name in _KEYS:
        key = getattr(settings, name)
        if key and not (key.isascii() and key.isprintable() and not set(key) & set(" \"'")):
            yield problem(
                "assistant",
                f"{name.upper()} has blanks, quotes or other characters that no key has",
                "copy it again, without them",
            )
    for name, (schemes, example) in _ADDRESSES.items():
        given = getattr(settings, name)
        if given and not _is_address(given, schemes):
            yield problem("assistant", f"{name.upper()} is no address", f"give one such as {example}")


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in schemes and bool(url.hostname) and url.port != 0
    except ValueError:  # a port, or an address within brackets, that is none
        return False


def _configured(settings: Settings) -> str:
    given = [name.upper() for name in (*_KEYS, *_ADDRESSES) if getattr(settings, name)]
    return f"{', '.join(given)} given" if given else "works without services"
