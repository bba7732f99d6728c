"""Secrets stay out of what people read: log lines, errors, answers."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from workerd.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

MASK = "********"
SHORTEST = 4  # characters; what is shorter would be found in ordinary words

_IN_ADDRESS = re.compile(r"(://[^\s:/@'\"]*:)[^\s/'\"]+(@)")


def is_secret(name: str) -> bool:
    """Whether the setting of this name holds a secret."""
    return Settings.model_fields[name].secret


def masked(value: str) -> str:
    """A secret as it may be shown: an address keeps all but its password, anything else keeps nothing."""
    scheme, mark, rest = value.partition("://")
    user, at, host = rest.rpartition("@")  # a password may hold characters that should have been encoded
    if ":" not in user and re.search(r"[/?#]", user):  # this @ stands in the path or the query
        user, at, host = "", "", rest
    try:
        parts = urlsplit(f"{scheme}{mark}{host}")
    except ValueError:
        return MASK
    if not mark or not parts.scheme or not (parts.netloc or parts.query):
        return MASK
    name = MASK if user and _is_key(scheme, user) else user.partition(":")[0]
    shown = name + (f":{MASK}" if ":" in user else "") + at + parts.netloc
    path = parts.path if parts.scheme.startswith("postgres") else re.sub(r"[^/]{12,}", MASK, parts.path)
    whole = f"{parts.scheme}://{shown}{path}{'?' if parts.query else ''}{parts.query}"
    return re.sub(r"(?i)(password|token|key|secret)=[^&]*", rf"\1={MASK}", whole)


def addresses(text: str) -> str:
    """The text without the passwords of the addresses in it, `scheme://user:password@host`."""
    return _IN_ADDRESS.sub(rf"\1{MASK}\2", text) if "://" in text else text


class Redactor:
    """Takes the secrets of the settings, and passwords within any address, out of a text."""

    def __init__(self, settings: Settings) -> None:
        found = {secret for name in Settings.model_fields if is_secret(name) for secret in _of(getattr(settings, name))}
        written = {spelling for secret in found for spelling in (secret, json.dumps(secret)[1:-1])}
        longest_first = sorted(written, key=len, reverse=True)
        self._known = re.compile("|".join(map(_whole, longest_first))) if written else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return addresses(text)


def _is_key(scheme: str, user: str) -> bool:
    """Whether what stands before the @ of an address is a secret by itself, as of a Sentry: it names nobody."""
    return scheme.startswith("http") and ":" not in user


def _of(value: str | None) -> Iterator[str]:
    """What of a secret setting must not be seen: the whole of a key, the password and the parameters of an address."""
    if not value:
        return
    scheme, mark, rest = value.partition("://")
    if not mark:
        yield from (each for each in (value,) if len(each) >= SHORTEST)
        return
    user, at, host = rest.rpartition("@")
    is_key = _is_key(scheme, user)
    public = {
        "" if is_key else user.partition(":")[0],
        scheme,
        *re.split(r"[:/?,&=]", host),
    }  # masked, these would hide more than the password
    secrets = [user if is_key else user.partition(":")[2]] if at else []
    secrets += re.findall(r"(?i)(?:password|token|key|secret)=([^&]*)", host)
    if not scheme.startswith("postgres"):
        secrets += re.findall(r"[^/?]{12,}", host.partition("/")[2])
    for secret in secrets:
        for spelling in {secret, unquote(secret)}:
            if len(spelling) >= SHORTEST and (spelling not in public or spelling in secrets[1:]):
                yield spelling


def _whole(secret: str) -> str:
    """A pattern for the secret that finds it in no longer word."""
    before, behind = r"(?<!\w)" if secret[0].isalnum() else "", r"(?!\w)" if secret[-1].isalnum() else ""
    return f"{before}{re.escape(secret)}{behind}"
